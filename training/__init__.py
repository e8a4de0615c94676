"""`ecgwatch train`: from records to a model bundle; torch, wfdb and openTSNE live here and nowhere else."""
