#!/bin/sh
# Run the tests in a build that finds faults: tests/deep/run.sh checked|asan|ubsan [of pytest]
#
# The build is made of a copy of what git knows, in build/MODE. Scratch has exactly the
# size that was asked for, and no memory is kept: what lies beyond belongs to nobody.
set -e
mode=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$root/build/$mode
mkdir -p "$copy"
cd "$root"
git ls-files -z | xargs -0 cp -p --parents -t "$copy"
cd "$copy"
export CONVCORE_BUILD="$mode" CONVCORE_ISAS="${CONVCORE_ISAS:-baseline,x86_64_v4}"
python setup.py -q build_ext --inplace -j "${JOBS:-2}"

export PYTHONPATH="$copy" PYTHONMALLOC=malloc CONVCORE_KEEP_BYTES=0
# What asks for memory that is kept cannot hold here.
set -- --deselect tests/test_runtime.py::test_scratch_is_kept_and_lent_once "$@"
set -- --deselect tests/test_buffers.py::test_a_child_keeps_what_waits_but_not_for_others "$@"
if [ "$mode" = asan ]; then
    # libstdc++ is there for extensions that throw: AddressSanitizer has to find it early.
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)"
    export LD_PRELOAD
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=8
    # It takes terabytes of address space, and keeps what is freed: no limits, and growth.
    for test in mutations.py memory_limits.py::test_memory_does_not_grow \
        threads.py::test_refused_threads_are_done_without \
        steady_state.py::test_steps_have_no_page_faults; do
        set -- --deselect "tests/test_$test" "$@"
    done
    # It takes the signals of pages that are closed, and ends with a code of its own.
    set -- --deselect tests/test_guard_pages.py::test_the_pages_are_closed "$@"
fi
# Frames are larger without inlining, and what is not optimised is slow.
for test in determinism.py interrupts.py demo.py::test_the_demo_from_the_command_line \
    threads.py::test_small_stacks_are_enough \
    threads.py::test_no_function_has_a_large_frame; do
    set -- --deselect "tests/test_$test" "$@"
done
exec python -X faulthandler -m pytest -p tests.deep.exact -p no:cacheprovider -q "$@"
