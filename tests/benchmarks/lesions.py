"""The tables of a model card that tell what is lost, of any bundle, rule or other program's images.

    python tests/benchmarks/lesions.py --dataset_dir AANLIB --bundle bundles/smfusion [--published_dir IMAGES]
        [--tables lost colour makes curve published atlas] [--pairs 100] [--output_dir FOLDER] [--card README.md]
    python tests/benchmarks/lesions.py --dataset_dir AANLIB --bundle bundles/smfusion --keep_anatomy 0.2
    python tests/benchmarks/lesions.py --dataset_dir AANLIB --rule maximum
    python tests/benchmarks/lesions.py --cases FOLDER --fused FOLDER

Lesions are put into the backgrounds of the reference judge (24 of each kind of pair, evenly spaced over the whole
atlas), all is fused in memory by the bundle's own engine, and these are printed:

    lost       recovery, share lost and observer's area in grey, by kind of lesion and of pair
    colour     observer's area of PET and SPECT in colour, against both sources side by side
    makes      small, faint, strong, large, ragged lesions and rings
    curve      share lost and area against contrast and size
    published  metrics of the pairs of which others published images, which are measured, too
    atlas      metrics of the whole atlas, or of so many pairs of each kind (--pairs), evenly spaced

Other programs fuse what `fusion-nets lesions` writes (--cases), and are judged by their files. With --card the tables
go between `<!-- table: NAME -->` and `<!-- end -->` of that file. Areas are by folds of pairs, as the reference judge's
are; intervals, in brackets, by bootstrap over subjects. With --keep_anatomy the tables are of PET alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from card_tables import colour_table, curve_table, lost_table, makes_table, metrics_table, put_into
from judged_pairs import (
    OTHERS,
    RULES,
    FuseOne,
    atlas,
    bundle_fuse,
    by_pair,
    judged,
    keeping,
    measured,
    of_levels,
    published,
)

from evaluation.report import LesionComparison, lesion_tables, psychometric_curves
from fusion_nets.workflows import judge_lesions

TABLES = ("lost", "colour", "makes", "curve", "published", "atlas")
SECTIONS = ("train", "val", "test")
# a table's name and Markdown
Named = tuple[str, str]


def of_headline(asked: list[str], grey: LesionComparison, coloured: LesionComparison | None) -> Iterator[Named]:
    """Tables of the first make of lesions."""
    if "lost" in asked:
        yield "lost", lost_table(grey, by_pair(grey))
    if "colour" in asked and coloured:
        yield "colour", colour_table(by_pair(coloured))


def of_makes(asked: list[str], grey: LesionComparison, folder: Path | None) -> Iterator[Named]:
    """Tables of all makes, where there are several; CSV and the figure go into the folder."""
    if "makes" in asked and len(grey.makes) > 1:
        yield "makes", makes_table(grey, by_pair(grey))
    if "curve" in asked and len(grey.makes) > 1:
        yield "curve", curve_table(grey)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in lesion_tables(grey).items():
            (folder / name).write_text(content, encoding="utf-8")
        (folder / "psychometric.png").write_bytes(psychometric_curves(grey))


def of_files(arguments: argparse.Namespace) -> Iterator[Named]:
    """Tables of images that another program made of what `fusion-nets lesions` wrote."""
    found = judge_lesions(arguments.cases, {"fused": arguments.fused})
    if found.comparison is None or found.failures:
        raise SystemExit(
            f"{len(found.failures)} images could not be judged: {[str(e) for *_, e in found.failures[:3]]}"
        )
    coloured = [score for score in found.comparison.scores if "colour" in score.responses]
    in_colour = LesionComparison(["fused"], coloured) if coloured else None
    yield from of_headline(arguments.tables, found.comparison, in_colour)
    yield from of_makes(arguments.tables, found.comparison, arguments.output_dir)


def in_memory(arguments: argparse.Namespace) -> Iterator[Named]:
    """Tables of a bundle or rule."""
    asked = arguments.tables
    name, fuse = bundle_fuse(arguments.bundle) if arguments.bundle else (arguments.rule, RULES[arguments.rule])
    kept, modality = arguments.keep_anatomy, None
    if kept is not None:
        fuse, modality = keeping(fuse, kept), "PT"
    methods: dict[str, FuseOne] = {name: lambda pair, image: fuse(image)} if arguments.bundle else {}
    methods |= {f"pointwise {rule}": of_levels(of) for rule, of in RULES.items()}
    if "published" in asked and arguments.published_dir:
        others = methods | {"DM-FNet (published images)": published(arguments.published_dir)}
        yield "published", metrics_table(measured(others, atlas(arguments.dataset_dir, ["published"], None, modality)))
    if {"lost", "colour", "makes", "curve"} & set(asked):
        backgrounds = atlas(arguments.dataset_dir, SECTIONS, arguments.backgrounds, modality)
        grey, coloured = judged(name, fuse, backgrounds)
        yield from of_headline(asked, grey, coloured)
        if {"makes", "curve"} & set(asked):
            others, _ = judged(name, fuse, backgrounds, OTHERS)
            grey = LesionComparison([name], [*grey.scores, *others.scores])
        yield from of_makes(asked, grey, arguments.output_dir)
    if "atlas" in asked:
        yield (
            "atlas",
            metrics_table(measured(methods, atlas(arguments.dataset_dir, SECTIONS, arguments.pairs, modality))),
        )


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    method = parser.add_mutually_exclusive_group(required=True)
    method.add_argument("--bundle", help="folder of a bundle")
    method.add_argument("--rule", choices=list(RULES), help="pointwise, instead of a bundle")
    method.add_argument("--fused", help="folder of another program's images of --cases")
    parser.add_argument("--cases", help="what `fusion-nets lesions` wrote")
    parser.add_argument("--dataset_dir")
    parser.add_argument("--published_dir")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--backgrounds", type=int, default=24, help="of lesions, of each kind of pair at most")
    parser.add_argument("--pairs", type=int, help="of the table atlas, of each kind at most; by default all")
    parser.add_argument("--output_dir", type=Path, help="for CSV of all lesions, and the figure of the curves")
    parser.add_argument("--keep_anatomy", type=float, metavar="SHARE", help="as the option of the bundles")
    parser.add_argument("--card", type=Path, help="model card whose tables are replaced")
    arguments = parser.parse_args(argv)
    of_others = bool(arguments.fused)
    if bool(arguments.cases) != of_others or bool(arguments.dataset_dir) == of_others:
        parser.error("--bundle and --rule need --dataset_dir, --fused needs --cases")

    for title, table in (of_files if of_others else in_memory)(arguments):
        print(f"\n{title}\n\n{table}", flush=True)
        if arguments.card and not put_into(arguments.card, title, table):
            print(f"\n{arguments.card} has no place for it")


if __name__ == "__main__":
    main()
