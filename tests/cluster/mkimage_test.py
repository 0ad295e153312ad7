#!/usr/bin/env python3
"""What mkimage.py promises: the same input gives the same bytes, whenever and wherever it is built; the archive is whole."""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest

MKIMAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mkimage.py")


class Images(unittest.TestCase):
    def build(self, directory, *options):
        """The bytes of an image made of one program and one text, from a directory of its own."""
        os.makedirs(directory)
        program, out = os.path.join(directory, "program"), os.path.join(directory, "out.tar")
        with open(program, "wb") as file:
            file.write(b"\x7fELF program")
        os.utime(program, (len(directory), len(directory)))
        subprocess.run(
            [sys.executable, MKIMAGE, out, "example.org/tool:1", f"{program}:bin/tool", *options],
            check=True, capture_output=True,
        )
        with open(out, "rb") as file:
            return file.read()

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)

    def at(self, name):
        return os.path.join(self.temporary.name, name)

    def test_two_builds_are_byte_equal(self):
        options = ["--label", "a=b", "--label", "c=d", "--dir", "tmp:1777", "--text", "etc/x=y", "--link", "bin/sh:tool"]
        self.assertEqual(self.build(self.at("one"), *options), self.build(self.at("another-place"), *options))

    def test_order_of_the_options_does_not_matter(self):
        one = self.build(self.at("one"), "--text", "etc/a=1", "--text", "etc/b=2", "--dir", "tmp:1777")
        other = self.build(self.at("other"), "--dir", "tmp:1777", "--text", "etc/b=2", "--text", "etc/a=1")
        self.assertEqual(one, other)

    def test_another_content_is_another_image(self):
        self.assertNotEqual(self.build(self.at("one"), "--text", "x=1"), self.build(self.at("two"), "--text", "x=2"))

    def test_blobs_are_what_their_names_say_and_the_user_is_not_root(self):
        archive = tarfile.open(fileobj=io.BytesIO(self.build(self.at("one"), "--entrypoint", '["/bin/tool"]')))
        blobs = {m.name.split("/")[-1]: archive.extractfile(m).read() for m in archive if m.name.startswith("blobs/")}
        for digest, data in blobs.items():
            self.assertEqual(hashlib.sha256(data).hexdigest(), digest)
        entry = json.load(archive.extractfile("index.json"))["manifests"][0]
        manifest = json.loads(blobs[entry["digest"][7:]])
        config = json.loads(blobs[manifest["config"]["digest"][7:]])
        self.assertEqual(config["config"]["User"], "65532:65532")
        self.assertEqual(config["config"]["Entrypoint"], ["/bin/tool"])
        layer = tarfile.open(fileobj=io.BytesIO(blobs[manifest["layers"][0]["digest"][7:]]))
        self.assertEqual([(m.name, m.uid, m.mtime) for m in layer], [("bin", 0, 0), ("bin/tool", 0, 0)])


if __name__ == "__main__":
    unittest.main()
