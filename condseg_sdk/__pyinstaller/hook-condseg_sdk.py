"""Run by PyInstaller when a program imports condseg_sdk: it reads these two names."""

from condseg_sdk.__pyinstaller import get_data_files, get_hidden_imports

datas = get_data_files()
hiddenimports = get_hidden_imports()
