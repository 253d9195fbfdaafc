"""The GGUF file that `llm.model` names: by path, in a package, or in parts in several packages."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent_bt.core.errors import ConfigError
from agent_bt.llm.llama_cpp.model_file import default_cache, digest_of, find_model, model_name

BYTES = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are installed in."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
    module, listed = name.replace("-", "_"), []
    for file, data in files.items():
        path = site / module / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        listed.append(f"{module}/data/{file},,")
    info = site / f"{module}-1.2.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
    (info / "METADATA").write_text(head + "".join(f"Requires-Dist: {one}\n" for one in requires))
    (info / "RECORD").write_text("\n".join([*listed, f"{info.name}/METADATA,,"]))


def in_parts(site: Path, *, checksum: str | None = None, lacking: int | None = None, first: int = 0) -> None:
    cut = [BYTES[:4000], BYTES[4000:9000], BYTES[9000:]]
    names = [f"toy-part{number}" for number in (1, 2, 3)]
    for at, (name, data) in enumerate(zip(names, cut, strict=True)):
        if at != lacking:
            install(site, name, {f"toy.gguf.part{at + first:02d}": data})
    sums = {} if checksum is None else {"SHA256SUMS": f"{checksum}  toy.gguf\n".encode()}
    install(site, "toy", {"README.md": b"", **sums}, tuple(f"{name}==1.2" for name in names))


def test_a_path_is_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.gguf"
    path.write_bytes(BYTES)
    assert find_model(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert find_model("toy.gguf") == Path("toy.gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model("~/toy.gguf") == path


def test_a_package_that_holds_one_file(site: Path) -> None:
    install(site, "toy-model", {"toy.gguf": BYTES, "README.md": b""})
    assert find_model("toy-model").read_bytes() == BYTES
    assert find_model("toy_model") == find_model("toy-model")


@pytest.mark.parametrize("first", [0, 1])
def test_parts_are_put_together_once(site: Path, tmp_path: Path, first: int) -> None:
    in_parts(site, checksum=hashlib.sha256(BYTES).hexdigest(), first=first)
    path = find_model("toy", tmp_path / "cache")
    assert path == tmp_path / "cache" / "toy-1.2" / "toy.gguf"
    assert path.read_bytes() == BYTES and [each.name for each in path.parent.iterdir()] == ["toy.gguf"]
    before = path.stat()
    assert find_model("toy", tmp_path / "cache").stat() == before
    path.write_bytes(BYTES[:-1])  # a copy that another program cut is made again
    assert find_model("toy", tmp_path / "cache").read_bytes() == BYTES


def test_parts_with_another_checksum_are_refused_and_leave_nothing(site: Path, tmp_path: Path) -> None:
    in_parts(site, checksum="0" * 64)
    with pytest.raises(ConfigError, match="do not have the checksum it lists"):
        find_model("toy", tmp_path / "cache")
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))


def test_a_missing_part_is_an_error(site: Path, tmp_path: Path) -> None:
    in_parts(site, lacking=1)
    with pytest.raises(ConfigError, match=r"lacks parts of toy\.gguf; install it again: pip install toy"):
        find_model("toy", tmp_path / "cache")


def test_what_is_not_a_model_says_what_to_do(site: Path, tmp_path: Path) -> None:
    install(site, "two", {"a.gguf": BYTES, "b.gguf": BYTES})
    install(site, "none", {"README.md": b""})
    (tmp_path / "text.gguf").write_text("not a model")
    (tmp_path / "real.gguf").write_bytes(BYTES)
    for model, words in {
        str(
            tmp_path / "missing.gguf"
        ): f"there is no file {tmp_path}/missing.gguf ({tmp_path} holds real.gguf, text.gguf)",
        str(tmp_path) + "/": "is a folder",
        str(tmp_path / "text.gguf"): "is not a GGUF file: it begins with b'not '",
        "two": "the package two holds 2 GGUF files; name one of them",
        "none": "the package none holds no GGUF file",
        "never-heard-of": "neither a GGUF file nor an installed package",
        "": "neither a GGUF file nor an installed package",
    }.items():
        with pytest.raises(ConfigError) as caught:
            find_model(model, tmp_path / "cache")
        assert words in str(caught.value)


def test_a_model_in_several_files_is_hashed_as_a_whole(tmp_path: Path) -> None:
    one, two = (tmp_path / f"toy-0000{number}-of-00002.gguf" for number in (1, 2))
    one.write_bytes(BYTES)
    with pytest.raises(ConfigError, match=r"toy-00002-of-00002\.gguf is missing beside it"):
        digest_of(one)
    two.write_bytes(b"GGUF more")
    assert digest_of(one) == hashlib.sha256(BYTES + b"GGUF more").hexdigest()
    two.write_bytes(b"GGUF else")
    assert digest_of(one) == hashlib.sha256(BYTES + b"GGUF else").hexdigest()


def test_names_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_name("some/where/toy.gguf") == "toy.gguf"
    assert model_name("Toy_Model") == "toy-model"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "agent-bt" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/agent-bt/models")
