"""Build the kernels: one source each, compiled once per instruction set.

Metadata is in pyproject.toml. In the environment:

=================  ==================================================================
CONVCORE_OPENMP=0  without OpenMP
CONVCORE_BUILD     a build that finds faults: one of MODES (docs/reliability.md)
CONVCORE_ISAS      only these instruction sets, with commas between them
=================  ==================================================================
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("convcore/kernels")
# Compiled once, for any processor: what there is, what is counted, what is held.
ONCE = ("probe", "memory", "teams", "buffers")


@dataclass(frozen=True)
class Isa:
    """One instruction set: the package of its compiled copies, and its flags."""

    package: str
    flags: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()  # those it exists on; none means everywhere


ISAS = (
    Isa("baseline"),
    Isa("x86_64_v3", ("-march=x86-64-v3",), ("x86_64", "AMD64")),
    Isa(
        "x86_64_v4",
        ("-march=x86-64-v4", "-mprefer-vector-width=512"),
        ("x86_64", "AMD64"),
    ),
)


@dataclass(frozen=True)
class Mode:
    """What a build is for: what is compiled and linked with, behind all other flags."""

    flags: tuple[str, ...]
    links: tuple[str, ...] = ()


# Reports name lines, and the first one ends the process.
FIND = ("-O1", "-g1", "-fno-omit-frame-pointer", "-fasynchronous-unwind-tables")
END = ("-fno-sanitize-recover=all", "-fno-wrapv")  # Python's -fwrapv hides overflows
UNDEFINED, ADDRESS = "-fsanitize=undefined", "-fsanitize=address"
MODES = {
    "release": Mode(("-g0",)),
    "checked": Mode((*FIND, *END, UNDEFINED, "-DCC_CHECKED"), (UNDEFINED,)),
    "ubsan": Mode((*FIND, *END, UNDEFINED), (UNDEFINED,)),
    "asan": Mode((*FIND, *END, ADDRESS), (ADDRESS,)),
}
# The baseline beside others is for processors from before 2013: it may be slower, and is
# smaller so.
FAST, SMALL = "-O3", "-O2"
# What only one instruction set is asked for (`isas` of its card).
ONLY = {"pool_max_rows": "x86_64_v4"}
# Loops that are chosen by a constant: made one by one only if all that is inline is so. In
# `pool_average` GCC leaves out some of them, or their stores, as others are added.
ONE_LOOP_EACH = ("activations", "pool_average")
INLINE = "-DCYTHON_INLINE=inline __attribute__((always_inline))"
# Never -ffast-math or a relative of it: linked in, it changes the floating-point mode of
# the whole process (GCC before 13), and NaN has to survive in the kernels.
WELCOME = (
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-loop-interchange",  # GCC swaps the loops of the tile otherwise
    "-fno-inline-functions-called-once",  # a tile in a large function: spilled vectors
    "-ffp-contract=fast",
    "-fno-asynchronous-unwind-tables",  # nothing unwinds C; 4 % of a wheel
    "-Wno-unused-function",
    "-Wno-ignored-attributes",
)
OPENMP = (  # flags to compile with, flags to link with
    (("-fopenmp",), ("-fopenmp",)),
    (("-Xpreprocessor", "-fopenmp"), ("-lomp",)),
)
STRIP = "-Wl,-s"  # no names of what nobody calls by name
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
    "binding": False,  # plain functions: a third less of a module that is mostly not loops
}
TRIVIAL = "int main(void) { return 0; }\n"
PARALLEL = """
#include <omp.h>
int main(void) {
    int n = 0;
    #pragma omp parallel num_threads(2) reduction(+:n)
    n += 1 + 0 * omp_get_thread_num();
    return n < 1;
}
"""


def check(variable: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse what the environment must not name."""
    for name in names:
        if name not in known:
            raise SystemExit(
                f"convcore: {variable} must be of {', '.join(known)}, got {name!r}"
            )


def extensions() -> list[Extension]:
    """List every kernel for every instruction set of this machine."""
    sources = sorted(KERNELS.glob("*.pyx"))
    isas = [i for i in ISAS if not i.machines or platform.machine() in i.machines]
    packages = [isa.package for isa in isas]
    wanted = (os.environ.get("CONVCORE_ISAS") or ",".join(packages)).split(",")
    check("CONVCORE_ISAS", wanted, packages)
    isas = [isa for isa in isas if isa.package in wanted]
    spare = isas[0] if len(isas) > 1 else None
    built: list[Extension] = []
    for isa in isas:
        built += [
            Extension(
                f"convcore.kernels.{isa.package}.{source.stem}",
                [str(source)],
                extra_compile_args=[
                    *isa.flags,
                    SMALL if isa is spare else FAST,
                    *([INLINE] if source.stem in ONE_LOOP_EACH else []),
                ],
                depends=[str(p) for p in KERNELS.glob("*.pxd")],
            )
            for source in sources
            if source.stem not in ONCE
            and ONLY.get(source.stem, isa.package) == isa.package
        ]
    built += [
        Extension(
            f"convcore.kernels.{name}",
            [f"{KERNELS}/{name}.pyx"],
            extra_compile_args=[FAST],
        )
        for name in ONCE
    ]
    return built


class Build(build_ext):
    """Translate every kernel, and give it the flags that this compiler knows.

    Here, and not before, as most commands build nothing.
    """

    def build_extensions(self) -> None:
        """Translate, try the flags, then build."""
        if not self.parallel:
            self.parallel = os.cpu_count()
        self.translate()
        if self.compiler.compiler_type == "msvc":
            raise SystemExit(
                "convcore: the kernels need GNU vector types: GCC or clang"
            )
        common = [f for f in WELCOME if self.compiles(TRIVIAL, (f,))]
        stripped = [STRIP] if RELEASE and self.compiles(TRIVIAL, (STRIP,)) else []
        compile_openmp, link_openmp = self.openmp()
        for extension in self.extensions:
            extension.extra_compile_args += [*common, *compile_openmp, *MODE.flags]
            extension.extra_link_args += [*link_openmp, *stripped, *MODE.links]
        super().build_extensions()

    def translate(self) -> None:
        """Make C of all sources, each instruction set in a folder of its own."""
        for package, group in groupby(self.extensions, lambda e: e.name.split(".")[-2]):
            extensions = {extension.name: extension for extension in group}
            for translated in cythonize(
                list(extensions.values()),
                build_dir=f"build/cython/{package}",
                compiler_directives=DIRECTIVES,
                nthreads=self.parallel or 0,
                emit_linenums=not RELEASE,
            ):
                extensions[translated.name].sources = translated.sources

    def openmp(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Find the flags of OpenMP, or none: the kernels are serial then."""
        if os.environ.get("CONVCORE_OPENMP", "1") != "0":
            for flags, libraries in OPENMP:
                if self.compiles(PARALLEL, flags, libraries):
                    return flags, libraries
        print("convcore: building without OpenMP, the kernels will use one thread")
        return (), ()

    def compiles(
        self, program: str, flags: tuple[str, ...], libraries: tuple[str, ...] = ()
    ) -> bool:
        """Tell whether the compiler builds a program without a warning."""
        command = list(self.compiler.compiler_so)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text(program)
            to = ["-o", str(Path(folder, "try.so")), "-shared", "-fPIC"]
            done = subprocess.run(
                [*command, "-Werror", *flags, str(source), *to, *libraries],
                capture_output=True,
                check=False,
            )
        return done.returncode == 0


if sys.platform == "win32" and not os.environ.get("CC"):
    raise SystemExit("convcore: set CC to clang or gcc; MSVC has no GNU vector types")

mode = os.environ.get("CONVCORE_BUILD") or "release"
check("CONVCORE_BUILD", [mode], MODES)
MODE, RELEASE = MODES[mode], mode == "release"
setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
