"""Stage `zoo`: the teachers and the captioner, trained on the pool where none can be downloaded.

At paper scale their place is taken by published open_clip weights; both are open_clip model folders.
"""
