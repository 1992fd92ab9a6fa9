"""Fine-tuning: the two training stages of the paper, from a dataset to a checkpoint. Start reading in `finetune.py`."""
