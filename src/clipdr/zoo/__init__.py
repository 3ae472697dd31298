"""Stage `zoo`: the teachers and the captioner, trained on the pool or published; all are open_clip model folders."""
