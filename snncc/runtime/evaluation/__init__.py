"""Evaluation of whole data sets, shard by shard: here, in processes, or on a cluster."""
