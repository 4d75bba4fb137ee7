"""Where whole files are kept: folders and S3 buckets, behind one small interface."""
