"""What users install: public names and their types, the wheel, its requirements, both set-ups."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import langadapt_utils as la
from langadapt_utils.workspace import NOTEBOOKS

ROOT = Path(__file__).parents[1]
HEAVY = "{'torch', 'transformers', 'pandas', 'datasets', 'scipy', 'babel', 'matplotlib'}"
SCRIPT = """
import langadapt_utils as la

reveal_type(la.extend_vocabulary)
la.extend_vocabulary(object(), ["szia"], tokens="many")
la.extend_vocabulary(object(), ["szia"], tokens=100)
la.nothing_of_the_sort
"""


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def by_name(lines: list[str]) -> dict[str, Requirement]:
    return {Requirement(line).name.lower(): Requirement(line) for line in lines}


def test_the_import_is_light_and_every_name_is_there() -> None:
    code = f"import sys, langadapt_utils; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in la.__all__:
        assert getattr(la, name).__doc__, name
    with pytest.raises(AttributeError):
        la.nothing_of_the_sort  # type: ignore[attr-defined] # noqa: B018


def test_every_public_name_is_shown_to_readers() -> None:
    notebooks = [ROOT / "notebooks" / name for name in NOTEBOOKS.values()]
    shown = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *notebooks]
    names = {
        name
        for path in shown
        for name in re.findall(r"\bla\.([A-Za-z]\w+)", path.read_text(encoding="utf-8"))
    }
    assert set(la.__all__) == names


def test_public_names_are_typed_for_users(tmp_path: Path) -> None:
    """mypy sees the package as users have it: among the packages of another environment."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "langadapt.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    options = ["--strict", "--ignore-missing-imports", "--no-incremental", "--no-color-output"]
    python = ["--python-executable", str(environment / "bin" / "python")]
    command = [sys.executable, "-m", "mypy", *options, *python, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert "tokens: int" in said[0] and said[0].endswith('.VocabularyChange"'), done.stdout
    assert [re.sub(r".*\[([\w-]+)\]$", r"\1", line) for line in said[1:-1]] == [
        "arg-type",
        "attr-defined",
    ]
    assert said[1].startswith("script.py:5:") and said[2].startswith("script.py:7:")


def test_conda_users_get_the_same_packages() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    named = by_name([line for line in pip if not line.startswith("--")])
    project = pyproject()["project"]
    assert named == by_name(project["dependencies"])
    assert "--constraint constraints.txt" in pip and "--editable ." in pip
    python = next(
        entry for entry in environment["dependencies"] if str(entry).startswith("python ")
    )
    assert python.removeprefix("python ") == project["requires-python"]


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {Requirement(line).name.lower(): line.partition("==")[2] for line in lines}
    assert all(pins.values()) and len(pins) == len(lines)
    content = pyproject()
    groups = [
        content["project"]["dependencies"],
        *content["project"]["optional-dependencies"].values(),
        *content["dependency-groups"].values(),
    ]
    wanted = by_name([line for group in groups for line in group if isinstance(line, str)])
    wanted.pop("langadapt")
    assert len(wanted) > 30
    for name, requirement in wanted.items():
        assert requirement.specifier.contains(pins[name]), requirement


def test_the_packages_of_the_design_are_there() -> None:
    wanted = {"jupyterlab", "torch", "transformers", "tokenizers", "datasets", "matplotlib"}
    wanted |= {"ipywidgets", "papermill"}
    assert wanted <= set(by_name(pyproject()["project"]["dependencies"]))


@pytest.mark.parametrize("suitable", ["python3", "python3.14", "python3.11", None])
def test_make_takes_the_first_suitable_python_and_says_which(
    suitable: str | None, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python3", *(f"python3.{minor}" for minor in (11, 12, 13, 14))):
        run = f'exec "{sys.executable}" "$@"' if name in (suitable, "python3.11") else "exit 1"
        run = "exit 1" if suitable is None else run
        (programs / name).write_text(f"#!/bin/sh\n{run}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    command = ["make", ".venv/bin/python"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    if suitable is None:
        assert done.returncode != 0 and "error: none of python3 python3.14" in done.stderr
        assert not (tmp_path / ".venv").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert f"using {suitable} (Python 3." in done.stdout


def test_the_image_copies_and_installs_what_there_is() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", image, re.M) for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    project, build = (
        pyproject()["project"],
        pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"],
    )
    needed = {*build["packages"], *build["force-include"], project["readme"]}
    assert needed | {"pyproject.toml", *project["license-files"]} <= copied
    (extras,) = re.findall(r"'\.\[(.+)\]'", image)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.slow
def test_the_wheel_holds_what_a_run_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"-w{tmp_path}", "."]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("langadapt-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    here = [path for path in (ROOT / "langadapt_utils").rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT).as_posix() for path in here if path.suffix != ".pyc"}
    wanted |= {f"langadapt_utils/notebooks/{name}" for name in NOTEBOOKS.values()}
    data = [path for path in (ROOT / "data").rglob("*") if path.is_file()]
    wanted |= {f"langadapt_utils/{path.relative_to(ROOT).as_posix()}" for path in data}
    assert {"langadapt_utils/__init__.pyi", "langadapt_utils/py.typed"} <= names
    assert wanted - names == set()


@pytest.mark.slow
def test_uv_finds_all_packages_and_runs_the_command(tmp_path: Path) -> None:
    uv = pytest.importorskip(
        "uv", reason="needs the package uv, one of the group dev"
    ).find_uv_bin()
    for name in ("pyproject.toml", "README.md", "LICENSE", "langadapt_utils/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = ["--python", sys.executable]
    for options in ([], ["--group", "dev", "--extra", "gpu"]):
        command = [uv, "sync", "--dry-run", *python, *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "+ transformers==" in done.stderr
        assert ("+ pytest==" in done.stderr) == bool(options)
    command = [uv, "run", "--no-sync", *python, "langadapt", "--help"]
    inside = {**os.environ, "UV_PROJECT_ENVIRONMENT": sys.prefix}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=inside)
    assert done.returncode == 0 and "compare" in done.stdout, done.stderr
