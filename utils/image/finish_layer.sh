#!/bin/sh
# Makes the folder of a layer ready: what inference never reads goes, the rest is compiled.
#
#   finish_layer.sh /layers/NAME    (its files will lie in /opt/oncofm)
set -eu

prefix="$1"
packages="$prefix/lib/python3.11/site-packages"

if [ -d "$packages/torch" ]; then
    # Headers, CMake files, the tools of its C++ tests; the shared-memory manager stays, as
    # torch does not start without it.
    rm -rf "$packages/torch/include" "$packages/torch/share" "$packages/torch/test"
    find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete
fi
if [ -d "$packages/openvino" ]; then
    # Of OpenVINO the CPU runs models that are prepared already: no other device, no other format,
    # no C interface, no converter. And nothing that could report to its makers.
    rm -rf "$packages/openvino/include" "$packages/openvino/cmake" "$packages/openvino/tools" \
        "$packages/openvino/torch" "$packages"/openvino_telemetry*
    find "$packages/openvino/frontend" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
    find "$packages/openvino" -name '*.pyi' -delete
    (
        cd "$packages/openvino/libs"
        rm -f cache.json tbb.pc libtbbmalloc* libopenvino_c.* libopenvino_auto* \
            libopenvino_hetero* libopenvino_intel_[gn]pu*
        find . -name '*_frontend.*' ! -name '*_ir_frontend.*' -delete
    )
fi
rm -rf "$packages/pyarrow/include" "$packages/pyarrow/src" "$packages/numpy/_core/include"
find "$packages" -name '*.a' -delete
# Test suites of the packages, found by name; what is called `testing` is code that runs.
# mhubio installs its own as the top-level package `test`.
rm -rf "$packages/test"
find "$packages" -type d -name tests -prune -exec rm -rf {} +

# The image runs read-only, so nobody compiles later. Unchecked: a changed time stamp, as some
# converters of images leave, costs no recompilation. Files for a newer Python do not compile;
# nothing that imports them runs here either.
/opt/oncofm/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash \
    -s "$prefix" -p /opt/oncofm "$packages" || true
