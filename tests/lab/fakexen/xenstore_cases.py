"""What xenplugin needs of a xenstored: cases for the fake one in fast tests, and for the real one in dom0.

In dom0, with only the package installed, as root: `python3 xenstore_cases.py`. Each case gets the path of a node of
its own, which is removed afterwards.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from threading import Thread

from xenplugin.errors import RefusedError
from xenplugin.xen.xenstore import Store, Watch

#: Seconds for an event that must come; one that must not come is given way to by one that must.
PATIENCE = 30.0


def refused(work: Callable[[], object]) -> RefusedError:
    try:
        work()
    except RefusedError as exc:
        assert exc.hint
        return exc
    raise AssertionError("not refused")


def case_what_is_written_is_read(root: str) -> None:
    with Store() as store:
        for value in ("1", "", "a b", "x" * 2000):
            store.write(f"{root}/a/b", value)
            assert store.read(f"{root}/a/b") == value
    with Store() as other:
        assert other.read(f"{root}/a/b") == "x" * 2000


def case_parents_come_with_their_children(root: str) -> None:
    with Store() as store:
        store.write(f"{root}/a/b/c", "1")
        assert store.read(f"{root}/a") == ""
        assert store.list(f"{root}/a") == ["b"] and store.list(f"{root}/a/b/c") == []


def case_what_is_not_there(root: str) -> None:
    with Store() as store:
        assert store.read(f"{root}/gone") is None
        assert store.list(f"{root}/gone") == []
        store.remove(f"{root}/gone")
        store.remove(f"{root}/gone/deeper/still")


def case_children_are_listed(root: str) -> None:
    with Store() as store:
        names = [f"n{number}" for number in range(300)]
        for name in names:
            store.write(f"{root}/many/{name}", "")
        assert sorted(store.list(f"{root}/many")) == sorted(names)


def case_a_node_goes_with_all_below(root: str) -> None:
    with Store() as store:
        store.write(f"{root}/a/b/c", "1")
        store.write(f"{root}/ab", "2")
        store.remove(f"{root}/a")
        assert store.read(f"{root}/a/b/c") is None and store.list(root) == ["ab"]


def case_too_long_a_value_is_refused(root: str) -> None:
    with Store() as store:
        told = refused(lambda: store.write(f"{root}/a", "x" * 5000))
        assert len(told.message) < 1000
        store.write(f"{root}/a", "still there")
        assert store.read(f"{root}/a") == "still there"


def case_odd_paths_and_values_are_refused(root: str) -> None:
    with Store() as store:
        for path in (f"{root}//a", f"{root}/a/", f"{root}/a b", f"{root}/ä", ""):
            refused(partial(store.write, path, "1"))
            refused(partial(store.read, path))
        refused(lambda: store.write(f"{root}/a", "ä"))
        assert store.list(root) == []


def case_a_watch_tells_at_once_and_of_each_change(root: str) -> None:
    with Store() as store, Watch(f"{root}/a") as watch:
        assert watch.wait(PATIENCE) == f"{root}/a"
        assert watch.wait(0) is None
        store.write(f"{root}/other", "1")
        store.write(f"{root}/a", "1")
        assert watch.wait(PATIENCE) == f"{root}/a"
        store.write(f"{root}/a/b/c", "2")
        assert watch.wait(PATIENCE) == f"{root}/a/b/c"
        store.remove(f"{root}/a")
        assert watch.wait(PATIENCE) == f"{root}/a"


def case_a_watch_hears_when_what_is_above_it_goes(root: str) -> None:
    with Store() as store:
        store.write(f"{root}/a/b", "1")
        with Watch(f"{root}/a/b") as watch:
            assert watch.wait(PATIENCE) == f"{root}/a/b"
            store.remove(f"{root}/a")
            assert watch.wait(PATIENCE) == f"{root}/a/b"


def case_a_watch_waits_no_longer_than_told(root: str) -> None:
    with Watch(root) as watch:
        assert watch.wait(PATIENCE) == root
        before = time.monotonic()
        assert watch.wait(0.05) is None
        assert time.monotonic() - before >= 0.04


def case_a_waiting_watch_is_woken(root: str) -> None:
    def write() -> None:
        with Store() as store:
            store.write(f"{root}/a", "1")

    with Watch(f"{root}/a") as watch:
        assert watch.wait(PATIENCE) == f"{root}/a"
        writer = Thread(target=write)
        writer.start()
        assert watch.wait(PATIENCE) == f"{root}/a"
        writer.join()


def case_domains_that_come_and_go_can_be_watched(root: str) -> None:
    for special in ("@introduceDomain", "@releaseDomain"):
        with Watch(special) as watch:
            assert watch.wait(PATIENCE) == special


CASES: dict[str, Callable[[str], None]] = {
    name.removeprefix("case_"): case for name, case in list(globals().items()) if name.startswith("case_")
}


def run(case: Callable[[str], None], number: int) -> None:
    """One case on a node of its own, with nothing left of it."""
    root = f"/tool/xenplugin-test-{os.getpid()}-{number}"
    with Store() as store:
        store.write(root, "")
        try:
            case(root)
        finally:
            store.remove(root)


def main() -> int:
    failed = 0
    for number, (name, case) in enumerate(CASES.items()):
        try:
            run(case, number)
            print(f"ok      {name}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}")
    print(f"{len(CASES) - failed} of {len(CASES)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
