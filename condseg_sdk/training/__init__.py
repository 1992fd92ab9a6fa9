from condseg_sdk.user import ensure_user_name

ensure_user_name()  # before MONAI is imported
