"""Exporters: a built image and its tree to where the user wants them (EXP, EXO, EXL).

``types`` reads what the user asked for, ``image`` makes configs, manifests and indexes, one file per kind of
destination does the rest, and ``run.export`` chooses among them.
"""
