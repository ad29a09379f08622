"""Which models of this process were converted, and the directives that their patches gave."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.parameters import SambaParameter


class Models:
    """The converted models of a process."""

    def __init__(self) -> None:
        self._names_of: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._parameters_of: WeakKeyDictionary[nn.Module, dict[str, SambaParameter]]
        self._parameters_of = WeakKeyDictionary()
        self._directives: WeakKeyDictionary[nn.Module, list[str]] = WeakKeyDictionary()

    def is_converted(self, module: nn.Module) -> bool:
        """Whether the module, or a model around it, was converted."""
        return module in self._names_of

    def add_directive(self, module: nn.Module, name: str) -> None:
        """Keep a directive of a module."""
        self._directives.setdefault(module, []).append(name)

    def directives_of(self, module: nn.Module) -> list[str]:
        """The directives of a module."""
        return self._directives.get(module, [])

    def convert_(self, model: nn.Module, prefix: str | None) -> None:
        """Turn each parameter of a model into a SambaParameter, in place; shared ones stay shared.

        Raises:
            ContractError: It was converted before.
        """
        if self.is_converted(model):
            raise ContractError(
                Contract.ORDER, "samba.from_torch_model_ twice on one model", "it once"
            )
        start = "" if prefix is None else f"{prefix}."
        made: dict[int, SambaParameter] = {}
        by_name: dict[str, SambaParameter] = {}
        for path, module in model.named_modules():
            for key, parameter in list(module._parameters.items()):
                if parameter is None:
                    continue
                name = f"{path}.{key}" if path else key
                if id(parameter) not in made:
                    own = SambaParameter(parameter.data, parameter.requires_grad)
                    own.sn_name = (start + name).replace(".", "__")
                    made[id(parameter)] = own
                module._parameters[key] = made[id(parameter)]
                by_name[name] = made[id(parameter)]
            self._names_of[module] = start + path
        self._parameters_of[model] = by_name

    def check_kept(self, model: nn.Module, doing: str) -> None:
        """Check that a model was converted and still has the parameters of that time.

        Raises:
            ContractError: It was not, or a later patch or load replaced some.
        """
        if model not in self._parameters_of:
            raise ContractError(
                Contract.ORDER,
                f"{doing} of a model that was never converted",
                "samba.from_torch_model_(model) before it",
            )
        kept = self._parameters_of[model]
        now = dict(model.named_parameters(remove_duplicate=False))
        replaced = sorted(
            name for name in kept.keys() | now.keys() if kept.get(name) is not now.get(name)
        )
        if replaced:
            raise ContractError(
                Contract.PATCH_FIRST,
                f"{doing}: parameters were replaced after samba.from_torch_model_: "
                f"{', '.join(replaced[:3])} ({len(replaced)} in all)",
                "patches before the conversion, and loads in place",
            )

    def check_converted(self, module: nn.Module, doing: str) -> None:
        """Check that the parameters of a module, or of what it wraps, were converted, and are own.

        Raises:
            ContractError: Some were not, or two names share one.
        """
        names: dict[int, str] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if not isinstance(parameter, SambaParameter):
                raise ContractError(
                    Contract.ORDER,
                    f"{doing} of {name}, which was never converted",
                    "samba.from_torch_model_(model) before it",
                )
            if id(parameter) in names:
                raise ContractError(
                    Contract.UNTIED,
                    f"{names[id(parameter)]} and {name} share one tensor",
                    "tie_word_embeddings=False and a copy: a multigraph shares no weights",
                )
            names[id(parameter)] = name


MODELS = Models()
