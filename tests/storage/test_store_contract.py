"""One contract for every store that can hold an output: local, memory, S3."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rdu_batch.errors import ObjectMissing, StoreError
from rdu_batch.storage.store import Store, open_object, open_store

NUM_RACERS = 8


class TestStoreContract:
    def test_a_whole_write_reads_back_and_makes_its_folders(self, store: Store) -> None:
        """Content and size are those written, empty content too."""
        store.put_whole("a/b/c.bin", b"\x00\xff\r\n")
        store.put_whole("a/empty", b"")
        assert store.read("a/b/c.bin") == b"\x00\xff\r\n"
        assert store.stat("a/b/c.bin").size_bytes == 4
        assert store.read("a/empty") == b""
        assert store.stat("a/empty").size_bytes == 0

    def test_a_whole_write_replaces_and_the_etag_tells(self, store: Store) -> None:
        """The new content is read; a store with etags shows another one."""
        store.put_whole("x", b"old")
        before = store.stat("x")
        store.put_whole("x", b"new")
        after = store.stat("x")
        assert store.read("x") == b"new"
        if store.protocol in ("s3", "az", "gs"):
            assert before.etag is not None
            assert before.etag != after.etag
        else:
            assert before.etag is None

    def test_a_file_is_put_whole_and_replaces(self, store: Store, tmp_path: Path) -> None:
        """The object has the file's bytes; an empty file makes an empty object."""
        source = tmp_path / "spool.json"
        source.write_bytes(b"z" * 3_000_001)
        store.put_whole("folder/part", b"old")
        store.put_file("folder/part", str(source))
        assert store.read("folder/part") == b"z" * 3_000_001
        source.write_bytes(b"")
        store.put_file("folder/part", str(source))
        assert store.read("folder/part") == b""

    def test_a_missing_source_file_leaves_the_object_as_it_was(
        self, store: Store, tmp_path: Path
    ) -> None:
        """A put that fails changes nothing."""
        store.put_whole("part", b"old")
        with pytest.raises(StoreError, match="does not exist"):
            store.put_file("part", str(tmp_path / "nowhere"))
        assert store.read("part") == b"old"

    def test_a_reader_never_sees_half_of_a_replaced_object(self, store: Store) -> None:
        """While one thread replaces, another reads one of the two contents, whole."""
        contents = [b"a" * 200_000, b"b" * 300_000]
        store.put_whole("x", contents[0])
        done = threading.Event()

        def replace() -> None:
            try:
                for turn in range(20):
                    store.put_whole("x", contents[turn % 2])
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(replace)
            reads = 0
            while not done.is_set() or reads == 0:
                assert store.read("x") in contents
                reads += 1
            writer.result()

    def test_create_once_creates_once(self, store: Store) -> None:
        """The second call says False and changes nothing."""
        assert store.create_once("run/epoch", b"first") is True
        assert store.create_once("run/epoch", b"second, longer") is False
        assert store.read("run/epoch") == b"first"

    def test_create_once_never_overwrites_what_a_put_wrote(self, store: Store) -> None:
        """An object is guarded however it came to be, even an empty one."""
        store.put_whole("x", b"")
        assert store.create_once("x", b"mine") is False
        assert store.read("x") == b""

    def test_create_once_refuses_empty_content(self, store: Store) -> None:
        """Some drivers do not guard empty objects, so none is created."""
        with pytest.raises(ValueError, match="content"):
            store.create_once("x", b"")
        assert not store.exists("x")

    def test_of_racing_creators_exactly_one_wins(self, store: Store) -> None:
        """Eight threads, several rounds; the content is the winner's, whole."""
        for turn in range(4):
            name = f"race/{turn}"
            barrier = threading.Barrier(NUM_RACERS)

            def race(racer: int, name: str = name, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                return store.create_once(name, f"racer {racer} ".encode() * 1000)

            with ThreadPoolExecutor(NUM_RACERS) as pool:
                won = list(pool.map(race, range(NUM_RACERS)))
            assert won.count(True) == 1
            assert store.read(name) == f"racer {won.index(True)} ".encode() * 1000

    def test_a_range_is_exactly_the_bytes_asked_for(self, store: Store) -> None:
        """Ranges at the begin, the middle and the end; an empty one is empty."""
        content = bytes(range(256))
        store.put_whole("x", content)
        for start, end in ((0, 256), (0, 1), (10, 20), (255, 256), (256, 256), (7, 7)):
            assert store.read_range("x", start, end) == content[start:end]

    def test_a_range_past_the_end_is_an_error(self, store: Store) -> None:
        """Never fewer bytes than asked for."""
        store.put_whole("x", b"12345")
        for start, end in ((0, 6), (4, 10), (5, 6), (9, 12)):
            with pytest.raises(StoreError, match="cannot read"):
                store.read_range("x", start, end)

    def test_all_of_an_object_is_read_with_its_stat(self, store: Store) -> None:
        """Of the size that is expected; another size is an error or told by the stat."""
        for content in (b"", b"12345"):
            store.put_whole("x", content)
            assert store.read_all_with_stat("x", len(content)) == (content, store.stat("x"))
        assert store.read_all_with_stat("x", 3) == (b"123", store.stat("x"))
        with pytest.raises(StoreError, match="cannot read"):
            store.read_all_with_stat("x", 6)
        with pytest.raises(ObjectMissing):
            store.read_all_with_stat("y", 5)

    def test_a_range_that_is_none_is_refused(self, store: Store) -> None:
        """Negative numbers and reversed ranges are mistakes of the caller."""
        store.put_whole("x", b"12345")
        for start, end in ((-1, 2), (3, 2)):
            with pytest.raises(ValueError, match="byte range"):
                store.read_range("x", start, end)

    def test_a_missing_object_is_named(self, store: Store) -> None:
        """Every read of it raises ObjectMissing with its URL; exists says no."""
        store.put_whole("there/x", b"1")
        for name in ("gone", "there/gone", "nowhere/gone", "there", "there/x/below"):
            assert not store.exists(name)
            for attempt in (
                lambda name=name: store.stat(name),
                lambda name=name: store.read(name),
                lambda name=name: store.read_range(name, 0, 1),
                lambda name=name: store.copy(name, "copied"),
            ):
                with pytest.raises(ObjectMissing) as caught:
                    attempt()
                assert store.join(name) in str(caught.value)
        assert not store.exists("copied")

    def test_a_listing_is_sorted_relative_and_of_files_only(self, store: Store) -> None:
        """Neighbours with the same beginning are no part of a folder."""
        for name in ("a/2", "a/1", "a/b/3", "ab/4", "5"):
            store.put_whole(name, name.encode())
        assert store.list_names("a") == ["a/1", "a/2"]
        assert store.list_names("a/", recursive=True) == ["a/1", "a/2", "a/b/3"]
        assert store.list_names("") == ["5"]
        assert store.list_names("", recursive=True) == ["5", "a/1", "a/2", "a/b/3", "ab/4"]

    def test_a_listing_of_a_missing_folder_is_empty(self, store: Store) -> None:
        """Also before the store's own folder exists, and for a name that is an object."""
        assert store.list_names("") == []
        assert store.list_names("nowhere", recursive=True) == []
        store.put_whole("x", b"1")
        assert store.list_names("x") == []
        assert store.list_names("x", recursive=True) == []

    def test_a_listing_is_never_stale(self, store: Store) -> None:
        """What another store object writes and deletes is seen at once."""
        other = open_store(store.url)
        assert store.list_names("a") == []
        other.put_whole("a/1", b"1")
        assert store.list_names("a") == ["a/1"]
        assert store.list_names("", recursive=True) == ["a/1"]
        other.put_whole("a/2", b"22")
        assert store.list_names("a") == ["a/1", "a/2"]
        assert store.exists("a/2")
        other.delete("a/1")
        assert store.list_names("a") == ["a/2"]
        assert not store.exists("a/1")

    def test_listed_stats_are_those_of_stat(self, store: Store) -> None:
        """A pin taken from a listing equals one taken from the object."""
        store.put_whole("a/1", b"one")
        store.put_whole("a/2", b"")
        for recursive in (False, True):
            listed = store.list_objects("a", recursive=recursive)
            assert listed == [(name, store.stat(name)) for name in ("a/1", "a/2")]

    def test_a_copy_has_the_same_bytes_and_replaces(self, store: Store) -> None:
        """The source stays."""
        store.put_whole("sealed/x", b"content")
        store.put_whole("part", b"old")
        store.copy("sealed/x", "part")
        store.copy("sealed/x", "new/folder/part")
        assert store.read("part") == store.read("new/folder/part") == b"content"
        assert store.read("sealed/x") == b"content"

    def test_a_deleted_object_is_gone_and_a_missing_one_is_fine(self, store: Store) -> None:
        """Deleting twice, and deleting what never was, changes nothing else."""
        store.put_whole("a/x", b"1")
        store.put_whole("a/y", b"2")
        store.delete("a/x")
        store.delete("a/x")
        store.delete("nowhere/x")
        assert store.list_names("a") == ["a/y"]

    def test_a_name_keeps_its_characters(self, store: Store) -> None:
        """Blanks, percent signs, plus signs, hash signs and letters beyond ASCII."""
        names = sorted(["a b", "50%25", "a+b", "a#b", "gr\u00fc\u00df", "x=1/y"])
        for name in names:
            store.put_whole(name, name.encode())
        assert store.list_names("", recursive=True) == names
        assert [store.read(name).decode() for name in names] == names

    def test_a_joined_url_opens_the_same_object(self, store: Store) -> None:
        """What a message or a plan names can be opened again."""
        store.put_whole("a/b.jsonl", b"here")
        folder, name = open_object(store.join("a/b.jsonl"))
        assert name == "b.jsonl"
        assert folder.read(name) == b"here"
        assert open_store(store.join("a")).list_names("") == ["b.jsonl"]

    @pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x"])
    def test_a_name_that_leaves_the_store_is_refused(self, store: Store, name: str) -> None:
        """Such a name is a mistake of the caller; nothing is touched."""
        with pytest.raises(ValueError, match="not an object name"):
            store.put_whole(name, b"1")
        with pytest.raises(ValueError, match="not an object name"):
            store.read(name)
