import os
import unicodedata
from pathlib import Path

import pytest

from feie.features.errors import UsageError, VideoError
from feie.features.video.sources import Source, discover, fingerprint


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ids(root: Path) -> list[str]:
    return [source.video_id for source in discover(root).sources]


def test_finds_videos_recursively_sorted_and_names_the_rest(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.MKV", "a/b/c.v2.webm", "notes.txt", "a/labels.csv", ".hidden.mp4"):
        touch(tmp_path / name)
    touch(tmp_path / ".git" / "x.mp4")
    touch(tmp_path / "features.zarr" / "zarr.json")
    touch(tmp_path / "features.zarr" / "c" / "0.mp4")
    found = discover(tmp_path)
    assert [s.video_id for s in found.sources] == ["a/b/c.v2", "a/z", "b"]
    assert [s.relative for s in found.sources] == ["a/b/c.v2.webm", "a/z.MKV", "b.mp4"]
    assert found.ignored == (".hidden.mp4", "a/labels.csv", "notes.txt")
    first = found.sources[0]
    assert (first.kind, first.size) == ("video", 1)
    assert first.mtime_ns == first.path.stat().st_mtime_ns


def test_folders_of_numbered_images_are_videos(tmp_path: Path) -> None:
    touch(tmp_path / "s" / "v.1" / "00001.jpg", b"one")
    touch(tmp_path / "s" / "v.1" / "00003.jpg", b"three")
    touch(tmp_path / "s" / "v.1" / "cover.jpg")
    touch(tmp_path / "photos" / "holiday.jpg")
    found = discover(tmp_path)
    (source,) = found.sources
    assert (source.video_id, source.kind, source.size) == ("s/v.1", "frames", 8)
    assert found.ignored == ("photos/holiday.jpg", "s/v.1/cover.jpg")


def test_root_may_be_one_video_or_one_folder_of_frames(tmp_path: Path) -> None:
    assert ids(touch(tmp_path / "clip.mp4")) == ["clip"]
    touch(tmp_path / "frames" / "1.png")
    assert ids(tmp_path / "frames") == ["frames"]


def test_same_id_twice_names_both(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "a.mkv")
    with pytest.raises(UsageError, match=r"a\.mkv and a\.mp4|a\.mp4 and a\.mkv"):
        discover(tmp_path)
    (tmp_path / "a.mkv").unlink()
    touch(tmp_path / "a" / "1.jpg")
    with pytest.raises(UsageError, match=r"'a'"):
        discover(tmp_path)


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        discover(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="it is empty"):
        discover(tmp_path)
    text = touch(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="1 other files"):
        discover(tmp_path)
    with pytest.raises(UsageError, match=r"a\.txt is not a video"):
        discover(text)


def test_links_are_followed_once_and_cycles_end(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    touch(outside / "o.mp4")
    root = tmp_path / "root"
    touch(root / "z" / "v.mp4")
    (root / "a_link_to_z").symlink_to(root / "z")
    (root / "z" / "up").symlink_to(root)
    (root / "linked").symlink_to(outside)
    (root / "file.mp4").symlink_to(outside / "o.mp4")
    (root / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    assert ids(root) == ["dangling", "file", "linked/o", "z/v"]
    dangling = discover(root).sources[0]
    with pytest.raises(VideoError, match="missing"):
        fingerprint(dangling)


def test_pipes_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert ids(tmp_path) == ["a"]


def test_names_that_no_id_may_hold(tmp_path: Path) -> None:
    touch(tmp_path / "new\nline.mp4")
    with pytest.raises(UsageError, match="control characters"):
        discover(tmp_path)


def test_undecodable_names_are_refused(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system wants valid Unicode")
    with pytest.raises(UsageError, match="invalid Unicode"):
        discover(tmp_path)


def test_accents_are_stored_in_one_form(tmp_path: Path) -> None:
    touch(tmp_path / (unicodedata.normalize("NFD", "é") + ".mp4"))
    assert ids(tmp_path) == [unicodedata.normalize("NFC", "é")]


def test_fingerprint_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    source = discover(touch(tmp_path / "a.mp4", b"abc")).sources[0]
    # sha256 of "abc", FIPS 180-2 appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(source) == f"sha256:{expected}"


def test_fingerprint_of_a_folder_sees_names_sizes_and_bytes(tmp_path: Path) -> None:
    def make(name: str, files: dict[str, bytes]) -> Source:
        for file, content in files.items():
            touch(tmp_path / name / file, content)
        return discover(tmp_path / name).sources[0]

    prints = [
        fingerprint(make("a", {"1.jpg": b"ab", "2.jpg": b"c"})),
        fingerprint(make("b", {"1.jpg": b"a", "2.jpg": b"bc"})),
        fingerprint(make("c", {"1.jpg": b"ab", "3.jpg": b"c"})),
        fingerprint(make("d", {"1.jpg": b"ab", "2.jpg": b"d"})),
    ]
    assert len(set(prints)) == len(prints)
    again = make("e", {"2.jpg": b"c", "1.jpg": b"ab", "notes.txt": b"does not count"})
    assert fingerprint(again) == prints[0]
