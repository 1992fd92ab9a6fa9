"""The page of `condseg app`: images and videos in a browser, on this machine.

`settings.py` has the options and limits, `uploads.py` checks files before they are decoded, `models.py` keeps opened
models, `prediction.py` segments and shows, `result_files.py` writes files, `page.py` is the Gradio page, and
`server.py` serves it. Only the last two need Gradio.
"""
