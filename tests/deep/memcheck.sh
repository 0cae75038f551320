#!/bin/sh
# Run small calls of every operation under valgrind: tests/deep/memcheck.sh
#
# In the build in place: valgrind knows no AVX-512, so the kernels of x86_64_v3 run. Only
# what a kernel has a part in counts; Python and NumPy have reports of their own.
set -e
cd "$(dirname "$0")/../.."
mkdir -p build
log=build/memcheck.log
PYTHONPATH="$PWD" PYTHONMALLOC=malloc CONVCORE_KEEP_BYTES=0 CONVCORE_ISA="${CONVCORE_ISA:-x86_64_v3}" \
    valgrind --log-file="$log" --error-limit=no --num-callers=30 \
    --suppressions=tests/deep/memcheck.supp \
    python -m tests.deep.memcheck 3 9
# Reports are blocks of lines, each beginning with ==pid==, with an empty line between.
found=$(sed 's/^==[0-9]*== *//' "$log" | awk -v RS= '/convcore\/kernels/ && !/^(HEAP|LEAK|ERROR|Memcheck)/' )
if [ -n "$found" ]; then
    echo "$found"
    exit 1
fi
tail -n 1 "$log"
