"""What a scale would cost before anything of it is made: jobs, GPU hours, storage and download, stage by stage.

Numbers are amounts of work, which the settings say, times rates, which a file says with sources (config/rates.yaml).
A stage without a rate has a dash and adds nothing: sums are then lower bounds, and say so. Jobs that need no GPU are
timed by earlier jobs of the same rule in this results folder, if there were any. All of it is counted from nothing.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipdr.artifacts import Artifact, all_of
from clipdr.chain import chunks_of
from clipdr.files import atomic_file
from clipdr.listing import MADE
from clipdr.provenance import JOBS
from clipdr.text import MISSING, markdown_table

HOUR, GB = 3600, 1e9


def plan(artifacts: Iterable[Artifact], scale: Mapping, rates: Mapping, seconds: Mapping[str, float]) -> list[dict]:
    """One line per stage, in the chain's order: stage, jobs, amount, gpu_hours, core_hours, storage_gb, download_gb.

    Args:
        artifacts: all that is wanted, as of `clipdr.artifacts.all_of`.
        scale: as its papers see it.
        rates: content of a file of rates.
        seconds: rule -> mean seconds of earlier jobs.
    """
    everything = all_of(artifacts).values()
    pairs = max(dataset["size"] for dataset in scale["datasets"].values())
    lines = []
    for stage in MADE:
        made = [one for one in everything if one.stage == stage]
        if not made:
            continue
        jobs, rule = sum(_jobs(one, scale) for one in made), JOBS[stage]
        work, gpu = zip(*(_work(one, scale, rates, pairs) for one in made), strict=True)
        lines.append(
            {
                "stage": stage,
                "jobs": jobs,
                "amount": _amounts(work),
                "gpu_hours": None if None in gpu else sum(gpu) / HOUR,
                "core_hours": _core_hours(made, scale, rates, seconds.get(rule), jobs),
                "storage_gb": _total(_stored(one, scale, rates, pairs) for one in made),
                "download_gb": _total(_fetched(one, scale, rates, pairs) for one in made),
            }
        )
    return lines


def write(lines: list[dict], title: str, rates: Mapping, published: Mapping[str, str], output: Path) -> None:
    """Write `output`.csv and .md: the stages and their sums, the rates with their sources, and the paper's figures."""
    sums = {key: sum(line[key] or 0 for line in lines) for key in list(lines[0])[3:]}
    total = {"stage": "all", "jobs": sum(line["jobs"] for line in lines), "amount": "", **sums}
    with atomic_file(output.with_name(f"{output.name}.csv")) as path, path.open("w", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, total])
    unknown = [line["stage"] for line in lines if line["gpu_hours"] is None]
    known = [(name, rate) for name, rate in _flat(rates)]
    text = [
        f"# {title}",
        f"Counted from nothing; hours are those of one {rates['gpu']}, or of one core of this machine. Sums are lower "
        f"bounds where a dash stands{': no rate is known for ' + ', '.join(unknown) if unknown else ''}.",
        markdown_table(
            [{key.replace("_", " "): _cell(value) for key, value in line.items()} for line in [*lines, total]]
        ),
        "## Rates",
        markdown_table(
            [{"unit": name, "value": f"{rate['value']:g}", "source": rate["source"]} for name, rate in known]
        ),
        "## The paper's own figures",
        markdown_table([{"what": what, "published": value} for what, value in published.items()]),
    ]
    with atomic_file(output.with_name(f"{output.name}.md")) as path:
        path.write_text("\n\n".join(text) + "\n", encoding="utf-8", newline="\n")


def published(table4c: Mapping, table4d: Mapping) -> dict[str, str]:
    """MobileCLIP's own figures of storage and time, of the experiments of that name."""
    storage = {row["name"]: row["published"].get("Size (TB)") for row in table4c["rows"]}
    hours = {row["name"]: row["published"].get("Hours per epoch") for row in table4d["rows"]}
    return {
        **{f"{name} (Table 4c)": f"{size} TB" for name, size in storage.items() if size is not None},
        **{f"{name} (Table 4d)": f"{time} h per epoch on 8 GPUs" for name, time in hours.items() if time is not None},
    }


def _jobs(one: Artifact, scale: Mapping) -> int:
    if one.stage == "eval":
        return scale["evaluation"].get("jobs", 1)
    if one.stage == "pool" and one.settings["kind"] == "datacomp":
        return 3 * chunks_of(one) + 1  # fetch both, join, and gather
    return chunks_of(one) if "{}" in MADE[one.stage] else 1


def _work(one: Artifact, scale: Mapping, rates: Mapping, pairs: int) -> tuple[dict[str, int], float | None]:
    """Unit -> amount, and GPU seconds: 0 where no GPU works, None where the rate is not known."""
    size = one.inputs["subset"].settings["size"] if "subset" in one.inputs else pairs
    on_gpu = scale["zoo"].get("device") == "cuda"
    match one.stage:
        case "captions" if "captioner" in one.inputs:
            captions = size * one.settings["number"]
            return {"captions": captions}, _seconds(captions, "captioned", rates, on_gpu)
        case "reinforced" if "teachers" in one.inputs:
            views = size * one.settings["augmentation"]["views"]
            return {"views": views}, _seconds(views * len(one.inputs["teachers"]), "embedded", rates, on_gpu)
        case "runs":
            training = one.settings["training"]
            samples, rate = training["steps"] * training["batch_size"], rates.get("trained", {})
            on_gpu = training["device"] == "cuda"
            return {"samples": samples}, _seconds(samples, one.settings["model"]["name"], rate, on_gpu)
        case "eval":
            images = sum(task.get("size", 0) for task in one.inputs["suite"].settings["tasks"])
            asked = any(device.startswith("cuda") for device in scale["evaluation"].get("devices", []))
            return {"images": images}, _seconds(images, "evaluated", rates, asked)
        case "corpora" if one.settings["method"] == "constructed" and (compared := _compared(one, scale)):
            return {"comparisons": compared}, 0
        case "pool":
            return {"pairs": pairs}, 0
        case "subset":
            return {"pairs": one.settings["size"]}, 0
    return {}, 0


def _core_hours(
    made: Iterable[Artifact], scale: Mapping, rates: Mapping, mean_seconds: float | None, jobs: int
) -> float | None:
    """Of what is compared for a corpus, by its rate; of other jobs, by earlier ones."""
    compared = [_compared(one, scale) for one in made if one.settings.get("method") == "constructed"]
    if compared and None not in compared and "compared" in rates:
        return sum(compared) / 1e12 * rates["compared"]["value"] / HOUR
    return None if mean_seconds is None else mean_seconds * jobs / HOUR


def _compared(corpus: Artifact, scale: Mapping) -> int | None:
    """Images times sentences, of Algorithm 1 of DIME-FM; None if nobody knows how many sentences there are."""
    names = [one.name.rpartition("-")[0] for one in corpus.inputs["sentences"]]
    about = [scale["sentences"][name].get("about") for name in names if name in scale.get("sentences", {})]
    images = corpus.inputs["images"].inputs["subset"].settings["size"]
    return None if None in about or not about else images * sum(about)


def _seconds(amount: int, name: str, rates: Mapping, on_gpu: bool) -> float | None:
    if not on_gpu:
        return 0
    return amount * rates[name]["value"] if name in rates else None


def _stored(one: Artifact, scale: Mapping, rates: Mapping, pairs: int) -> float | None:
    """Bytes that stay: a pool as fetched and as joined, and both forms of a reinforced dataset."""
    match one.stage:
        case "pool":
            fetched = _fetched(one, scale, rates, pairs)
            return None if fetched is None else 2 * fetched
        case "reinforced":
            embedded = one.settings["augmentation"] if one.settings["teachers"] else None
            return _bytes(one.inputs["subset"].settings["size"], embedded, scale, rates)
        case "rows":
            return _stored(one.inputs["reinforced"], scale, rates, pairs)
    return 0


def _fetched(one: Artifact, scale: Mapping, rates: Mapping, pairs: int) -> float | None:
    """Bytes that come over the network: images, and what is published of them."""
    if one.stage != "pool" or one.settings["kind"] != "datacomp":
        return 0
    return _bytes(pairs, one.settings.get("augmentation"), scale, rates)


def _bytes(pairs: int, augmentation: Mapping | None, scale: Mapping, rates: Mapping) -> float | None:
    """Of images with captions, and of views and texts with their embeddings if there is an augmentation.

    None without rates, which are of web images and of the paper's teachers.
    """
    if scale["pool"]["kind"] != "datacomp" or not {"image", "view", "text"} <= rates.keys():
        return None
    image, view, text = (rates[name]["value"] for name in ("image", "view", "text"))
    texts = scale["captions"]["number"] + 1
    return pairs * (image + (augmentation["views"] * view + texts * text if augmentation else 0))


def _total(amounts: Iterable[float | None]) -> float | None:
    amounts = list(amounts)
    return None if None in amounts else sum(amounts) / GB


def _amounts(work: Iterable[Mapping[str, int]]) -> str:
    """`245,760,000 samples`."""
    sums: dict[str, int] = {}
    for one in work:
        for unit, amount in one.items():
            sums[unit] = sums.get(unit, 0) + amount
    return ", ".join(f"{amount:,} {unit}" for unit, amount in sums.items())


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def _flat(rates: Mapping) -> Iterable[tuple[str, Mapping]]:
    for name, rate in rates.items():
        if name == "trained":
            yield from ((f"{name}, {model}", of_model) for model, of_model in rate.items())
        elif name != "gpu":
            yield name, rate
