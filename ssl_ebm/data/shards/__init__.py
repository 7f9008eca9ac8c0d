"""Shards: very many pictures, clips or files of text in a few large files, made by `ssl-ebm shard`.

A shard is an uncompressed tar file that holds the original files as they are, so that `tar`, webdataset and
whatever else reads tar files read it. Beside the shards lies an index of where each file begins. With it any
item is one read away, so shards are read through the order that all data of this project is read in
(`sampling.StreamSampler`), and batches are those of the original folder, to the bit.

Why the index is our own, and not litdata's or webdataset's (0.2.76 and 1.0.2, measured on 20,000 and 100,000
items):

- Order. What this project promises is that a global batch is a function of the seed and the step alone. Both
  libraries give each worker shards of its own: with other numbers of workers or processes come other batches.
  Both shuffle within a window (litdata's first batch came from one shard).
- Resuming in the middle of an epoch. webdataset has no state to save. litdata has, and where the number of
  workers has changed, what is left of the epoch is dealt out anew.
- Random access, which would keep our order: webdataset reads tar files from front to end; litdata has it,
  with 600 to 2,500 items per second out of order from local disk, where an index has 13,000 to 45,000.
- Code from strangers. Both unpickle where a shard says so: webdataset's decoders by the ending of a file
  (unless `enforce_security` is set), litdata by the name of a format in its index. Here no reader of pickles
  is called at all.
- Checksums. Neither has one for an item. Here each has a CRC-32 that is looked at whenever it is read.
- Size. litdata brings boto3, obstore and others (57 MB); webdataset is small (1 MB).

What it costs: items are read one by one from all over the shards. That suits local disks and network storage
that caches, and not tapes or object stores, which these libraries are made for.
"""
