"""Where in the user's own source something happens: the module, the file and the line to look at."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

_TRACED = re.compile(r'File "([^"\n]+)", line (\d+)')
"""A frame in the text of a traceback."""


@dataclass(frozen=True)
class Site:
    """A place in a network. module: its qualified name ("" the network itself, None unknown).

    file, line: of the user's source, "" and 0 where there is none. code: that line, stripped.
    """

    module: str | None = None
    file: str = ""
    line: int = 0
    code: str = ""

    @property
    def where(self) -> str:
        """`file:line`, the file from the working folder or from where its package was found; "" where unknown."""
        if not self.file:
            return ""
        path = Path(self.file)
        roots = [root for root in (Path.cwd(), *map(Path, filter(None, sys.path))) if path.is_relative_to(root)]
        nearest = max(roots, key=lambda root: len(root.parts), default=None)
        return f"{path if nearest is None else path.relative_to(nearest)}:{self.line}"

    def __str__(self) -> str:
        named = "the network itself" if self.module == "" else self.module or ""
        return f"{named} ({self.where})" if named and self.where else named or self.where

    def to_json(self) -> dict[str, str | int | None]:
        return {"module": self.module, "file": self.file, "line": self.line, "code": self.code}


def site_of_error(error: BaseException, model: nn.Module) -> Site:
    """Where `error` came from while `model`, or a copy of it, ran: the innermost module, and the user's last line.

    The error that was caused by no other is read first, then what it caused.
    """
    best = Site()
    for caught in _chain(error):
        module: str | None = None
        last: FrameType | None = None
        line = 0
        names: dict[int, str] = {}
        trace = caught.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            names = names or _names_under(frame, model)
            module = _module_of(frame, names, module)
            if names and is_users(frame.f_code, model):  # before that it is whoever ran the network
                last, line = frame, trace.tb_lineno
            trace = trace.tb_next
        if last is not None:
            return _site(module, last.f_code.co_filename, line)
        if module is not None and best.module is None:
            best = Site(module)
    return best


def site_in_users(error: BaseException, module_name: str) -> Site:
    """The innermost line that `error` passed through of the user's code: of the package of `module_name`, wherever that
    is installed, or of no library at all. Site() where there is none.

    The error that was caused by no other is read first, then what it caused.
    """
    package = _package_folder(module_name)
    for caught in _chain(error):
        if isinstance(caught, SyntaxError) and caught.filename and not caught.filename.startswith("<"):
            return _site(None, caught.filename, caught.lineno or 0)
        found = Site()
        trace = caught.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if _is_of(file, package):
                found = _site(None, file, trace.tb_lineno)
            trace = trace.tb_next
        for file, line in _TRACED.findall(str(caught)):  # as torch's loaders tell of their worker processes
            if _is_of(file, package):
                found = _site(None, file, int(line))
        if found.file:
            return found
    return Site()


def raised_here(error: BaseException) -> bool:
    """Whether a line of automc, not of the network or of a library, raised it: that is a bug and stays one.

    What torch's modes hand on to (a function written in C) is not a line of automc.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return True
    code = trace.tb_frame.f_code
    if code.co_name in ("__torch_function__", "__torch_dispatch__"):
        return False
    return Path(code.co_filename).resolve().is_relative_to(Path(__file__).resolve().parent)


def defined_at(thing: object) -> Site:
    """Where a function, a class, a generator or an object's class was written; Site() where it was not in Python."""
    for part in (thing, getattr(thing, "func", None), type(thing)):
        part = inspect.unwrap(part) if callable(part) else part
        code = getattr(part, "__code__", None) or getattr(part, "gi_code", None)
        if isinstance(code, CodeType):
            return _site(None, code.co_filename, code.co_firstlineno)
        if inspect.isclass(part) and part.__module__ != "builtins":
            try:
                return _site(None, inspect.getfile(part), inspect.getsourcelines(part)[1])
            except (OSError, TypeError):
                return Site()
    return Site()


def method_site(thing: object, method: str, module_name: str) -> Site:
    """Where the user wrote `method` of `thing`, or of the data set that torch's own wrappers around it hold, or the
    generator that `thing` is. module_name: of the user's code. Site() where it is a library's.
    """
    inner: object | None = thing
    package = _package_folder(module_name)
    while inner is not None:
        for name in (method, "__getitem__", "__iter__"):
            code = getattr(inner, "gi_code", None) or getattr(getattr(type(inner), name, None), "__code__", None)
            if isinstance(code, CodeType) and _is_of(code.co_filename, package):
                return _site(None, code.co_filename, code.co_firstlineno)
        inner = getattr(inner, "dataset", None)
    return Site()


def call_sites(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, Site]:
    """For each module that one run calls, the user's line that calls it first; runs in eval mode, without gradients."""
    import torch

    found: dict[str, Site] = {}
    names = {id(module): name for name, module in model.named_modules()}
    training = {module: module.training for module in model.modules()}

    def note(module: nn.Module, _args: object) -> None:
        name = names.get(id(module))
        if name is None or name in found:
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not is_users(frame.f_code, model):
            frame = frame.f_back
        if frame is None:
            found[name] = forward_site(name, module)
        else:
            found[name] = _site(name, frame.f_code.co_filename, frame.f_lineno)

    handles = [module.register_forward_pre_hook(note) for name, module in model.named_modules() if name]
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return found


def forward_site(name: str, module: nn.Module) -> Site:
    """Where the class of `module` defines its forward, if that is not torch's or ours; else the module alone."""
    code = getattr(type(module).forward, "__code__", None)
    if not isinstance(code, CodeType) or _inside(code.co_filename, _torch_folder()):
        return Site(name)
    ours = Path(__file__).resolve().parent
    if _inside(code.co_filename, str(ours)) and code.co_filename != str(ours / "workloads" / "networks.py"):
        return Site(name)  # a stand-in for a network, such as for an ONNX file
    return _site(name, code.co_filename, code.co_firstlineno)


def is_users(code: CodeType, model: nn.Module) -> bool:
    """Whether `code` is the user's: of the packages the network's classes come from, or of no library at all."""
    file = code.co_filename
    if file.startswith("<") or _inside(file, _torch_folder()):
        return False
    if any(_inside(file, folder) for folder in _folders_of(model)):
        return True
    return not any(_inside(file, folder) for folder in _library_folders())


def _site(module: str | None, file: str, line: int) -> Site:
    import linecache

    return Site(module, file, line, linecache.getline(file, line).strip())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What caused the error, innermost first, then the error itself."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    yield from reversed(chain)


def _names_under(frame: FrameType, model: nn.Module) -> dict[int, str]:
    """Qualified names by identity, where the frame runs the network or a copy of it; else none."""
    owner = _owner(frame)
    if owner is None or type(owner) is not type(model):
        return {}
    return {id(module): name for name, module in owner.named_modules()}


def _module_of(frame: FrameType, names: Mapping[int, str], outer: str | None) -> str | None:
    owner = _owner(frame)
    return outer if owner is None else names.get(id(owner), outer)


def _owner(frame: FrameType) -> nn.Module | None:
    """The module whose method the frame is in."""
    from torch import nn

    owner = frame.f_locals.get("self")
    return owner if isinstance(owner, nn.Module) else None


def _folders_of(model: nn.Module) -> tuple[str, ...]:
    """Folders of the packages, files of the lone modules, that define the network's classes; torch's are not."""
    return _folders(frozenset(type(module) for module in model.modules()))


@functools.lru_cache(maxsize=64)
def _folders(kinds: frozenset[type]) -> tuple[str, ...]:
    found = set()
    for kind in kinds:
        top, _, rest = kind.__module__.partition(".")
        if top in ("torch", "builtins"):
            continue
        if top == "automc":  # of all that ships here only the networks stand for a user's
            found.add(str(Path(__file__).resolve().parent / "workloads" / "networks.py"))
            continue
        file = getattr(sys.modules.get(top if rest else kind.__module__), "__file__", None)
        if file is None:
            file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if file is not None:
            found.add(str(Path(file).resolve().parent) if Path(file).name == "__init__.py" else str(file))
    return tuple(sorted(found))


@functools.lru_cache(maxsize=64)
def _package_folder(module_name: str) -> str:
    """The folder of the package, or the file of the lone module, that `module_name` is of; "" where it is not found."""
    from importlib.util import find_spec

    top = module_name.partition(".")[0]
    try:
        spec = find_spec(top) if top else None
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    places = list(spec.submodule_search_locations or [])
    return str(Path(places[0]).resolve()) if places else str(spec.origin or "")


def _is_of(file: str, package: str) -> bool:
    """Whether a source file is the user's: of `package`, or of no library."""
    if file.startswith("<"):
        return False
    if package and _inside(str(Path(file).resolve()), package):
        return True
    return not any(_inside(file, folder) for folder in (_torch_folder(), *_library_folders()))


def _inside(file: str, folder: str) -> bool:
    return file == folder or file.startswith(folder + os.sep)


@functools.cache
def _torch_folder() -> str:
    import torch

    return str(Path(torch.__file__).parent)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """The standard library, installed packages, and this package."""
    paths = sysconfig.get_paths()
    named = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    named |= {str(Path(inspect.getfile(os)).parent), str(Path(__file__).resolve().parent)}
    return tuple(sorted(named))
