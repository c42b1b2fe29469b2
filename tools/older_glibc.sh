#!/bin/sh
# usage: older_glibc.sh FOLDER     (with PYTHON, which has the package ziglang)
#
# Fills FOLDER with glibc 2.28's libraries as a linker sees them: names and versions of symbols, no code. What is linked with
# -LFOLDER asks for nothing newer, whatever glibc this machine has, and loads wherever torch does, whose wheels are
# manylinux_2_28 too. zig has these names for every release of glibc; nothing else of it is used.
set -eu
folder=$1
target="$(uname -m)-linux-gnu.2.28"
zig="$PYTHON -m ziglang"
rm -rf "$folder" "$folder.new" && mkdir -p "$folder.new"
cd "$folder.new"
export ZIG_GLOBAL_CACHE_DIR="$PWD/zig" ZIG_LOCAL_CACHE_DIR="$PWD/zig"

# libstdc++'s headers read this variable, which came with glibc 2.32 and says whether there is one thread alone: there may be more.
echo '__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;' >later.c
$zig cc -target "$target" -fPIC -c later.c -o later.o
$zig cc -target "$target" -shared later.o -o later.so # for which it writes the libraries
$zig ar rcs liblater.a later.o
for library in zig/o/*/lib*.so.*; do
    file=$(basename "$library")
    mv "$library" "$file"
    ln -s "$file" "${file%.so.*}.so"
done
# As glibc's own libc.so, which adds the few functions that are linked statically, atexit among them.
rm libc.so && echo 'GROUP ( libc.so.6 -lc_nonshared -llater )' >libc.so
rm -r zig later.*
cd / && mv "$folder.new" "$folder"
