"""What has not changed since an earlier run is not read again: what proves that, and which answers are taken over."""
