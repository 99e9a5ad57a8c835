"""An import-linter contract: the adapters of one package do not import each other.

import-linter's own `independence` needs every adapter by name, and its check would follow shared helpers; here a new
file is an adapter unless it is listed as shared, and `bedrock_errors` belongs to `bedrock`.
"""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AdaptersContract(Contract):
    """Adapters of one package know what is shared there, their own helpers, and no other adapter.

    Options:
        package: the package.
        adapters: the adapters' names; every child that is not shared when missing.
        shared: children that adapters may import.
        collectors: children that may import every adapter, such as the table.
    """

    type_name = "adapters"

    package = fields.StringField()
    adapters = fields.SetField(subfield=fields.StringField(), required=False)
    shared = fields.SetField(subfield=fields.StringField(), required=False)
    collectors = fields.SetField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 - the base's signature
        """Return whether the rule holds, with the imports that break it."""
        package = str(self.package)
        children = {name.removeprefix(f"{package}.") for name in graph.find_children(package)}
        adapters = self.names("adapters") or children - self.names("shared")
        checked = (adapters & children) - self.names("collectors")
        broken = sorted(
            f"{importer} imports {imported}"
            for child in checked
            for importer in _tree(graph, f"{package}.{child}")
            for imported in graph.find_modules_directly_imported_by(importer)
            if _is_foreign(child, imported, package, adapters & children)
        )
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the imports that break the rule."""
        for line in check.metadata["broken"]:
            output.print_error(line)

    def names(self, option: str) -> set[str]:
        """Return a set option's value, empty when it is not given."""
        return {str(name) for name in getattr(self, option) or ()}


def _tree(graph: ImportGraph, module: str) -> set[str]:
    return {module, *graph.find_descendants(module)}


def _is_foreign(child: str, imported: str, package: str, adapters: set[str]) -> bool:
    if not imported.startswith(f"{package}."):
        return False
    other = imported.removeprefix(f"{package}.").partition(".")[0]
    return other in adapters and _owner(other, adapters) != _owner(child, adapters)


def _owner(name: str, adapters: set[str]) -> str:
    """Return the adapter that a module belongs to: itself, or the one whose name its own begins with."""
    return min((other for other in adapters if name == other or name.startswith(f"{other}_")), key=len)
