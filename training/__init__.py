"""Offline training: ingest, datasets, agents, alignments, trainer, evaluation, export."""
