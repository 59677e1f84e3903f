"""Find the files of outputs, for filers of any store."""
