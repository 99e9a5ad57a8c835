"""A mounted ConfigMap or Secret as the kubelet writes it, and as it changes it.

Every name in the folder is a link to `..data/<name>`; `..data` is a link to a folder named after the time. A change
makes another such folder, renames a new link over `..data`, and deletes the old folder at once.
Source: kubernetes pkg/volume/util/atomic_writer.go, v1.36 (checked 2026-11).
"""

import shutil
from collections.abc import Mapping
from pathlib import Path


class Mount:
    """One mounted volume.

    Args:
        folder: the mount path; made here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writes = 0
        folder.mkdir()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Let the volume hold these files from now on, all at once; names may have folders."""
        old = (self.folder / "..data").resolve()
        self._writes += 1
        new = self.folder / f"..2026_11_28_09_30_{self._writes:02}.123456789"
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(self.folder / "..data")
        for top in {name.partition("/")[0] for name in files}:
            if not (self.folder / top).is_symlink():
                (self.folder / top).symlink_to(f"..data/{top}")
        if old.name.startswith("..2026"):
            shutil.rmtree(old)
