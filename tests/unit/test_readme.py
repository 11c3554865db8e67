"""The README and the documentation state facts about the code."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tomllib

import pytest

import luigi_tasks
from podium.models.metrics import CLASSIFICATION, REGRESSION
from podium.project import Project, parse_project
from podium.settings import ROOT
from podium.training.families import FAMILIES
from service.settings import ServiceSettings

README = (ROOT / "README.md").read_text()
DOCS = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
PAGES = {"../README.md": README, **DOCS}
"""Texts by their path, as seen from docs/."""
EVERYTHING = "\n".join(PAGES.values())
MAKEFILE = (ROOT / "Makefile").read_text()
FOLDERS = "podium|service|luigi_tasks|lambda_refresh|deploy|tests|docs|benchmarks|templates|projects"


def blocks(language: str, text: str) -> list[str]:
    """Return the code blocks of a language, without the indent of blocks in lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", EVERYTHING, re.MULTILINE))
    projects = {f"project-{path.parent.name}" for path in (ROOT / "projects").glob("*/accept.py")}
    assert projects <= set(re.findall(r"make ([a-z-]+)", README)) and "project-%:" in MAKEFILE
    assert named - projects <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)) | {"project-"}


def test_every_make_target_is_listed_by_make_help_with_a_description() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.MULTILINE))


def commands() -> list[str]:
    """Return all `podium …` commands that the README and the documentation name."""
    handwritten = "\n".join(text for path, text in PAGES.items() if not path.startswith("reference/"))
    texts = [*blocks("bash", handwritten), *re.findall(r"`(podium [^`]+)`", handwritten)]
    return sorted({name.strip() for text in texts for name in re.findall(r"podium ((?:[a-z]+(?: |$))+)", text, re.MULTILINE)})


@pytest.mark.slow
def test_every_podium_command_exists() -> None:
    found = commands()
    assert {"config show", "models promote", "projects check", "serve", "fsck"} <= {
        " ".join(text.split()[:2]) for text in found
    }
    code = (
        "import sys, click\nfrom podium.cli.main import podium\n"
        "for line in sys.argv[1:]:\n"
        "    group = podium\n"
        "    for word in line.split():\n"
        "        if not isinstance(group, click.Group): break\n"
        "        group = group.get_command(click.Context(group), word)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *found], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_every_luigi_task_and_module_exists() -> None:
    for name in re.findall(r"(?:luigi_tasks|--of) ([A-Z][a-z]\w+)", EVERYTHING):
        assert hasattr(luigi_tasks, name), name
    for module in re.findall(r"python -m ((?:benchmarks|projects|service|podium)[\w.]*)", EVERYTHING):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_setting_is_documented() -> None:
    for name in ServiceSettings.model_fields:
        assert f"`PODIUM_{name.upper()}`" in DOCS["reference/settings.md"]


def test_every_named_setting_exists() -> None:
    source = "\n".join(path.read_text() for folder in ("lambda_refresh", "podium") for path in (ROOT / folder).rglob("*.py"))
    known = {f"PODIUM_{name.upper()}" for name in ServiceSettings.model_fields} | set(re.findall(r"PODIUM_[A-Z_]+", source))
    assert set(re.findall(r"PODIUM_[A-Z_]+", EVERYTHING)) <= known


def test_every_key_of_a_project_is_documented() -> None:
    for name in set(Project.model_fields) - {"name"}:
        assert re.search(rf"^\| `{name}[`.]", DOCS["reference/project.md"], re.MULTILINE), name


def test_the_example_of_the_readme_is_a_valid_project() -> None:
    (example,) = blocks("toml", README)
    assert parse_project({"name": "x", **tomllib.loads(example)}, "README").columns["BMI"].na_values == ("0",)
    assert len(example.strip().splitlines()) == 5


@pytest.mark.parametrize("path", [path for path, text in DOCS.items() if "```toml" in text])
def test_the_project_examples_of_the_documentation_are_valid(path: str) -> None:
    for example in blocks("toml", DOCS[path]):
        entries = {"data": "s3://podium/raw/x.csv", "target": "y", **tomllib.loads(example)}
        assert parse_project({"name": "x", **entries}, path)


def test_every_family_metric_and_task_is_named() -> None:
    for name in FAMILIES:
        assert f"`{name}`" in README and f"`{name}`" in DOCS["reference/project.md"]
    for name in [*CLASSIFICATION, *REGRESSION]:
        assert f"`{name}`" in DOCS["reference/project.md"]
    for name in ("binary", "multiclass", "regression"):
        assert f"`{name}`" in README
    (chain,) = re.findall(r"`(Ingest →[^`]*)`", DOCS["explanation/pipeline.md"])
    assert re.findall(r"[A-Z]\w+", chain) == [name for name in re.findall(r"[A-Z]\w+", chain) if hasattr(luigi_tasks, name)]


@pytest.mark.parametrize("path", PAGES)
def test_every_named_file_link_and_picture_exists(path: str) -> None:
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", PAGES[path]):
        assert "NAME" in name or "diabetes" in name or (ROOT / name).exists(), name
    folder = (ROOT / "docs" / path).parent
    for link in re.findall(r"\]\((?!http|#)([^)#]+)(?:#[^)]*)?\)", PAGES[path]):
        assert (folder / link).exists(), link


def test_every_page_is_part_of_the_website() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(DOCS)


def test_the_readme_is_short_and_has_short_sentences() -> None:
    assert len(README.splitlines()) <= 220
    prose = re.sub(r"```.*?```|^\|.*?$|^#.*?$|^!\[.*?$", "", README, flags=re.DOTALL | re.MULTILINE)
    sentences = [sentence.split() for sentence in re.split(r"[.:]\s|\n\n", prose) if len(sentence.split()) > 2]
    assert statistics.median(map(len, sentences)) < 18
