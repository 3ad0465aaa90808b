"""Where documents come from: S3 objects and the entries of ConfigMaps are listed and read, uploads are only read."""
