"""Prints the keys of the captions in a data set of Lance, one a line: `python captionflow_keys.py FOLDER`."""

import sys

import lance

if __name__ == "__main__":
    print(*lance.dataset(sys.argv[1]).to_table(columns=["item_key"])["item_key"].to_pylist(), sep="\n")
