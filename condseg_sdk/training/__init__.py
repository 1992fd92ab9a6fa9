"""Fine-tuning: the two stages of the paper, from a dataset to a checkpoint. Start reading at `finetune.py`."""
