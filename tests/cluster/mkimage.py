#!/usr/bin/env python3
"""Writes a one-layer container image (FROM scratch) as an OCI-layout archive, from static files.

    mkimage.py OUT.tar NAME:TAG [options] SOURCE:DESTINATION[:MODE]...

The archive is what `ctr images import`, `docker load`, `podman load`, `skopeo copy oci-archive:` and
`kind load image-archive` take. It is deterministic: the same files and options give the same bytes on every
machine (fixed times, owners, order). It needs nothing but Python's standard library: no daemon, no root, no network.

It promises no layering, no base images and no compression: for a couple of static programs these bring nothing.
"""
import argparse
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA = "application/vnd.oci.image."


def canonical(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class Layer:
    """A tar whose entries are sorted by path, each parent directory before its content."""

    def __init__(self, mtime):
        self.entries, self.mtime = {}, mtime

    def _add(self, path, mode, kind, data=b"", target=""):
        path = path.strip("/")
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self.directory(parent, 0o755)
        if kind != tarfile.DIRTYPE and path in self.entries:
            sys.exit(f"mkimage: {path} is given twice")
        self.entries[path] = (mode, kind, data, target)

    def directory(self, path, mode):
        self._add(path, mode, tarfile.DIRTYPE)

    def file(self, path, mode, data):
        self._add(path, mode, tarfile.REGTYPE, data)

    def link(self, path, target):
        self._add(path, 0o777, tarfile.SYMTYPE, target=target)

    def bytes(self):
        return tar(
            [(path, *self.entries[path]) for path in sorted(self.entries, key=lambda p: p.split("/"))], self.mtime
        )


def tar(entries, mtime):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, mode, kind, data, target in entries:
            info = tarfile.TarInfo(path)
            info.mode, info.type, info.linkname, info.mtime = mode, kind, target, mtime
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def image(reference, layer, config, architecture):
    blobs = {}

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": MEDIA + kind, "digest": "sha256:" + digest, "size": len(data)}

    layers = [blob(layer, "layer.v1.tar")]
    config = blob(
        canonical(
            {
                "architecture": architecture,
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [entry["digest"] for entry in layers]},
            }
        ),
        "config.v1+json",
    )
    manifest = blob(
        canonical({"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": config, "layers": layers}),
        "manifest.v1+json",
    )
    manifest["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rsplit(":", 1)[-1],
    }
    index = {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [manifest]}
    # `docker load` and kind look for this older list; it names the same blobs
    docker = [
        {
            "Config": "blobs/sha256/" + config["digest"][7:],
            "RepoTags": [reference],
            "Layers": ["blobs/sha256/" + entry["digest"][7:] for entry in layers],
        }
    ]
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": canonical(index), "manifest.json": canonical(docker)}
    files.update({"blobs/sha256/" + digest: data for digest, data in blobs.items()})
    return [(path, 0o644, tarfile.REGTYPE, files[path], "") for path in sorted(files)], manifest["digest"]


def pair(text, separator):
    left, found, right = text.partition(separator)
    if not found or not left:
        sys.exit(f"mkimage: expected NAME{separator}VALUE, got {text!r}")
    return left, right


def main():
    parser = argparse.ArgumentParser(description="Writes a one-layer OCI image archive from static files.")
    parser.add_argument("out")
    parser.add_argument("reference", help="NAME:TAG, e.g. example.org/tool:1.0")
    parser.add_argument("files", nargs="*", metavar="SOURCE:DESTINATION[:MODE]", help="MODE is octal, 755 if absent")
    parser.add_argument("--entrypoint", type=json.loads, help="JSON list")
    parser.add_argument("--cmd", type=json.loads, help="JSON list")
    parser.add_argument("--user", default="65532:65532", help="numeric UID:GID (default: 65532:65532)")
    parser.add_argument("--workdir")
    parser.add_argument("--env", action="append", default=[], metavar="K=V")
    parser.add_argument("--label", action="append", default=[], metavar="K=V")
    parser.add_argument("--expose", action="append", default=[], metavar="PORT/PROTO")
    parser.add_argument("--dir", action="append", default=[], metavar="PATH[:MODE]", help="an empty directory")
    parser.add_argument("--link", action="append", default=[], metavar="PATH:TARGET", help="a symbolic link")
    parser.add_argument("--text", action="append", default=[], metavar="PATH=CONTENT", help="a small text file")
    parser.add_argument("--arch", default=ARCHITECTURES.get(platform.machine(), platform.machine()))
    a = parser.parse_intermixed_args()

    mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    layer = Layer(mtime)
    for item in a.dir:
        path, _, mode = item.partition(":")
        layer.directory(path, int(mode or "755", 8))
    for item in a.files:
        source, rest = pair(item, ":")
        path, _, mode = rest.partition(":")
        with open(source, "rb") as file:
            layer.file(path, int(mode or "755", 8), file.read())
    for item in a.text:
        path, content = pair(item, "=")
        layer.file(path, 0o644, content.encode())
    for item in a.link:
        layer.link(*pair(item, ":"))

    config = {"User": a.user, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *a.env]}
    optional = {
        "Entrypoint": a.entrypoint,
        "Cmd": a.cmd,
        "WorkingDir": a.workdir,
        "Labels": dict(pair(item, "=") for item in a.label),
        "ExposedPorts": {port: {} for port in a.expose},
    }
    config.update({key: value for key, value in optional.items() if value})
    entries, digest = image(a.reference, layer.bytes(), config, a.arch)
    partial = f"{a.out}.{os.getpid()}"
    with open(partial, "wb") as out:
        out.write(tar(entries, 0))
    os.replace(partial, a.out)
    print(f"{a.reference} {digest}")


if __name__ == "__main__":
    main()
