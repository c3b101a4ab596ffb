"""Debian packages without root: apt as resolver and downloader with a state of its own.

apt's private state holds no installed packages, so it resolves everything a package needs; it checks the
archive's signatures and each file's hash as always.  The mirror's address is the one this machine's own apt
configuration names.  See apt.conf(5), sources.list(5) and deb822(5).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest.debian.packages import (
    ARCHITECTURE,
    ASSUMED,
    COMPONENTS,
    KEYRINGS,
    MIRROR_VARIABLE,
    SUITES,
    Package,
    Progress,
    Source,
)
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, MissingEnvironment
from vfio_user_xe.emulator.temporary import temporary_folder

_DEBIAN_SUITE = re.compile(
    r"(?:bullseye|bookworm|trixie|forky|duke|sid|unstable|testing|stable|oldstable|oldoldstable)"
    r"(?:-updates|-backports)?/?$"
)

# apt's words (methods/gpgv and acquire-item.cc, "is expired (invalid since ...)") with LC_ALL=C.
_EXPIRED = re.compile(r"Release file for \S+/dists/(\S+)/(?:InRelease|Release) is expired")

# apt-get --print-uris: "'ADDRESS' FILE BYTES SHA256:HASH"
_URI = re.compile(r"^'\S+' ([^/\s]+) \d+ SHA256:(\w+)", re.MULTILINE)

_TARGET = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(SOURCESENTRY)"


@dataclass(frozen=True)
class Mirror:
    """A Debian mirror that this machine uses, and the keyring its entry names ("" when it names none)."""

    uri: str
    signed_by: str = ""


def debian_mirrors(options: Sequence[str] = ()) -> list[Mirror]:
    """Debian mirrors that this machine's apt is configured with, the likeliest first; `options` are for apt-get.

    A third party's repository may use Debian's suite names too, so an entry signed by Debian's keyring or whose
    path ends in `/debian` comes before others; a wrong guess fails at the signature, never silently.

    Raises:
        MissingEnvironment: apt cannot read its own configuration.
    """
    # Without --no-release-info only those are listed whose package lists this machine has downloaded.
    command = ["apt-get", *options, "indextargets", "--no-release-info", "--format", _TARGET, "Created-By: Packages"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingEnvironment(
            f"This machine's apt cannot read its sources:\n{_last_lines(done.stderr)}\n"
            f"Mend them, or name a Debian mirror in the environment variable {MIRROR_VARIABLE}."
        )
    ranked: dict[Mirror, int] = {}
    for line in done.stdout.splitlines():
        uri, suite, component, entry = line.split("\t")
        if component != "main" or not _DEBIAN_SUITE.match(suite) or urllib.parse.urlsplit(uri).scheme == "cdrom":
            continue
        uri, signed_by = uri.rstrip("/"), _signed_by(entry)
        rank = 0 if "debian-archive" in signed_by else 1 if uri.endswith("/debian") else 2
        # apt does not copy what it finds under file:, but here it has to.
        ranked.setdefault(Mirror(re.sub("^file:", "copy:", uri), signed_by), rank)
    return sorted(ranked, key=lambda mirror: ranked[mirror])


def _signed_by(entry: str) -> str:
    """The keyring that a source entry names, "" for none: apt does not tell it.

    `entry` is apt's FILE:NUMBER, a line of a one-line file, a stanza of a deb822 file. A fingerprint, or a key in the
    file itself, is none.
    """
    name, _, number = entry.rpartition(":")
    path = Path(name)
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    if path.suffix == ".sources":
        lines = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
        parts, pattern = [part for part in re.split(r"\n\s*\n", lines) if part.strip()], r"^Signed-By:\s*(/\S+)"
    else:
        parts, pattern = text.splitlines(), r"[\[\s]signed-by=(/[^\s\]]+)"
    index = int(number) - 1
    found = re.search(pattern, parts[index], re.IGNORECASE | re.MULTILINE) if index < len(parts) else None
    return found[1] if found else ""


class PrivateApt:
    """apt-get working in `directory` only.

    What was downloaded stays in `directory` until the caller removes it, so that an interrupted download goes on
    where it stopped.

    Packages come from the suites `SUITES`, and from those in `newer` what is newer there. A Release file of a newer suite
    that is past its date is refused, whatever the machine's own configuration says, but for the suites in `accept_expired`.
    """

    def __init__(
        self, directory: Path, source: Source, newer: Sequence[str] = (), accept_expired: Sequence[str] = ()
    ) -> None:
        for tool in ("apt-get", "apt-cache"):
            if shutil.which(tool) is None:
                raise MissingEnvironment(
                    f"{tool} is not on this machine. Name a Debian mirror with --mirror, and Python fetches the packages, or "
                    "take a file that `vfio-user-xe guest bundle FILE` made elsewhere with `guest fetch --from FILE`."
                )
        self.directory = directory
        self._archives = directory / "cache/archives"
        self._named = source.mirror
        self._keyring = source.keyring
        self._newer = tuple(newer)
        self._accept_expired = frozenset(accept_expired)
        for folder in ("state/lists/partial", "cache/archives/partial", "log"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        (directory / "state/status").write_text(_status())
        (directory / "preferences").write_text("")
        self._configuration = directory / "apt.conf"
        self._configuration.write_text(self._apt_conf())

    def candidates(self) -> list[Mirror]:
        """Mirrors to try: the one that the user names, else those of the machine's apt configuration."""
        keyrings = [path for path in KEYRINGS if Path(path).exists()]
        found = [Mirror(self._named)] if self._named else debian_mirrors()
        if found and self._keyring is not None:
            return [Mirror(mirror.uri, str(self._keyring.absolute())) for mirror in found]
        if not found:
            raise MissingEnvironment(
                "This machine's apt configuration names no Debian mirror. Name one, with its path, by --mirror or the "
                f"environment variable {MIRROR_VARIABLE}, and make sure that the package debian-archive-keyring is "
                "installed. With --no-apt Python fetches the packages, and needs neither."
            )
        # Debian's full keyring first: an entry may name the keys of the machine's own, older release only.
        return [
            Mirror(mirror.uri, signed_by)
            for mirror in found
            for signed_by in dict.fromkeys([*keyrings, mirror.signed_by] if mirror.signed_by else keyrings or [""])
        ]

    def update(self) -> Mirror:
        """Fetch the package lists; returns the mirror that worked.

        Raises:
            ExpiredSuites: for no other reason than the date of Release files.
            FetchFailed: no mirror works.
            ExpiredSuites: none works, for the date of Release files alone.
        """
        complaints, expired = [], set[str]()
        for mirror in self.candidates():
            lines = [self._source(mirror, suite) for suite in (*SUITES, *self._newer)]
            (self.directory / "sources.list").write_text("".join(lines))
            output, code = self._run(["update", "-q"], None)
            if code == 0:
                return mirror
            expired.update(_EXPIRED.findall(output))
            complaints.append(f"{mirror.uri}:\n{_last_lines(output)}")
        message = "apt could not fetch Debian's package lists.\n" + "\n".join(complaints)
        if expired:
            raise ExpiredSuites(message, tuple(suite for suite in (*SUITES, *self._newer) if suite in expired))
        raise FetchFailed(message)

    def _source(self, mirror: Mirror, suite: str) -> str:
        options = [f"signed-by={mirror.signed_by}"] if mirror.signed_by else []
        if suite in self._accept_expired:
            options.append("check-valid-until=no")
        elif suite in self._newer:
            options.append("check-valid-until=yes check-date=yes")
        option = f"[{' '.join(options)}] " if options else ""
        return f"deb {option}{mirror.uri} {suite} {' '.join(COMPONENTS)}\n"

    def resolves(self, packages: Sequence[str]) -> bool:
        """Whether the suites have these packages with everything they need, after `update`."""
        return self._run(["--simulate", *_install(packages)], None)[1] == 0

    def names(self, prefix: str) -> list[str]:
        """Names of packages that begin with `prefix`, after `update`."""
        return _query(["apt-cache", "-c", str(self._configuration), "pkgnames", prefix]).split()

    def download_alone(self, names: Sequence[str], progress: Progress) -> list[Package]:
        """Download exactly these packages, without what they need.

        Raises:
            FetchFailed: apt could not; with the end of what it printed.
        """
        arguments = ["download", "-q", *names]
        files = self._without_bad_ones(arguments)
        output, code = self._run(arguments, progress, self._archives)
        if code != 0:
            raise FetchFailed(f"apt could not download {', '.join(names)}.\n{_last_lines(output)}")
        found = {path.name.partition("_")[0]: path for path in files if path.is_file()}
        if missing := [name for name in names if name not in found]:
            raise FetchFailed(f"apt reported success, but did not download {', '.join(missing)}")
        return [Package(name, "", found[name]) for name in names]

    def download(self, packages: Sequence[str], progress: Progress) -> list[Package]:
        """Download packages with everything they need.

        `progress` is called with the fraction done and the total as apt prints it (`172 MB`).
        """
        arguments = _install(packages)
        output, code = self._run(["--simulate", *arguments], None)
        simulated = output
        if code == 0:
            self._without_bad_ones(arguments)
            output, code = self._run(["--download-only", *arguments], progress)
        if code != 0:
            raise FetchFailed(f"apt could not download {', '.join(packages)}.\n{_last_lines(output)}")
        found = []
        # apt-get --simulate: "Inst NAME (VERSION ORIGIN [ARCHITECTURE])"
        for name, version, architecture in re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", simulated, re.MULTILINE):
            archive = f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
            found.append(Package(name, version, self._archives / archive))
        missing = [package.archive.name for package in found if not package.archive.is_file()]
        if missing or not found:
            raise FetchFailed(f"apt reported success, but did not download {', '.join(missing or packages)}")
        return found

    def _without_bad_ones(self, arguments: Sequence[str]) -> list[Path]:
        """The files that a download consists of, there or not; what is there and is not what the archive describes is removed.

        apt believes a file that it has by its size alone (apt-pkg/acquire-item.cc:pkgAcqArchive).
        """
        with temporary_folder() as empty:
            # apt names only those that it lacks.
            options = ["-o", f"Dir::Cache::archives={empty}", "-o", "Acquire::ForceHash=SHA256", "--print-uris"]
            output, _ = self._run([*options, *arguments], None, Path(empty))
        found = []
        for name, sha256 in _URI.findall(output):
            path = self._archives / name
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                path.unlink()
            found.append(path)
        return found

    def _apt_conf(self) -> str:
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",
            "Acquire::Retries": "3",
            "Dir::State": f"{self.directory}/state",
            "Dir::State::status": f"{self.directory}/state/status",
            "Dir::Cache": f"{self.directory}/cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Log": f"{self.directory}/log",
            "Dir::Etc::sourcelist": f"{self.directory}/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": f"{self.directory}/preferences",
            "Dir::Etc::preferencesparts": "-",
        }
        # The machine's own hooks would act on the machine's own state.
        cleared = ["APT::Architectures", "APT::Update::Pre-Invoke", "APT::Update::Post-Invoke"]
        cleared += ["APT::Update::Post-Invoke-Success", "DPkg::Pre-Invoke", "DPkg::Post-Invoke"]
        cleared += ["DPkg::Pre-Install-Pkgs", "Acquire::IndexTargets::deb::DEP-11"]
        text = "".join(f"#clear {name};\n" for name in cleared)
        return text + "".join(f'{name} "{value}";\n' for name, value in settings.items())

    def _run(self, arguments: list[str], progress: Progress | None, folder: Path | None = None) -> tuple[str, int]:
        command = ["apt-get", "-c", str(self._configuration)]
        if progress is None:
            done = subprocess.run(
                command + arguments,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                cwd=folder,
            )
            return (done.stdout + done.stderr).decode(errors="replace"), done.returncode
        # Status and ordinary output share one pipe: apt flushes both, and one reader cannot deadlock.
        process = subprocess.Popen(
            [*command, "-o", "APT::Status-Fd=1", *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=folder,
        )
        assert process.stdout is not None
        output, total = [], ""
        try:
            for line in process.stdout:
                if match := re.match(r"dlstatus:\d+:([\d.]+):", line):
                    progress(float(match.group(1)) / 100, total)
                    continue
                output.append(line)
                if match := re.match(r"Need to get (?:\S+ \S*B/)?(\S+ \S*B)", line):
                    total = match.group(1)
            return "".join(output), process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            process.stdout.close()


def _status() -> str:
    """A dpkg status file in which one package stands for all that is assumed."""
    provided = ", ".join(f"{name} (= {version})" if version else name for name, version in ASSUMED.items())
    return (
        "Package: vfio-user-xe-assumed\nStatus: install ok installed\nPriority: optional\nSection: misc\n"
        f"Maintainer: none\nArchitecture: all\nVersion: 1\nProvides: {provided}\n"
        "Description: what an unpacked folder does without\n\n"
    )


def _install(packages: Sequence[str]) -> list[str]:
    return ["install", "-q", "-y", "-t", SUITES[-1], *packages]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _query(command: list[str]) -> str:
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, check=True).stdout


def _last_lines(output: str) -> str:
    telling = [line for line in output.splitlines() if line.startswith(("E:", "W:", "Err"))]
    return "\n".join(f"  {line}" for line in (telling or output.splitlines())[-8:])
