"""clipdeploy beside its peers: each in an environment of its own, on one checkpoint and the same pictures.

    python -m bench.peers [--count 32] [--rounds 4] [--threads 2]

Read in this order: `catalogue` (who takes part), `venvs` (how each is installed), `checkpoint` (one checkpoint in each
one's format), `hosts/` (how each is used), `turns` (who is measured when), `gates` (who is exact enough), `page`.
"""
