"""MIL as text, as the `model.mil` of a compiled Core ML model has it: read into MIL's protobuf, and written from it.

    program(1.3)
    [buildInfo = dict<string, string>({{"coremlc-version", "3520.5.1"}})]
    {
        func main<ios18>(tensor<fp32, [2, 3]> x) {
                tensor<fp32, [3]> b = const()[name = string("b"), val = tensor<fp32, [3]>([0x1p+0, 0x0p+0, -inf])];
                tensor<fp32, [2, 3]> y = add(x = x, y = b)[name = string("y")];
            } -> (y);
    }

The grammar is in `program`, `types` and `values`, each rule beside the function that reads it; quoted words stand for
themselves, `?` is optional, `*` any number, `,*` any number with commas between. There is no published grammar: this
one is what the files of Apple's compiler hold. Only the blocks of `cond` and `while_loop`, and lists of strings, are
as their neighbours suggest; no file with them was at hand.
"""

from triune.coreml.mil_text.program import read_text
from triune.coreml.mil_text.write import write_text

__all__ = ["read_text", "write_text"]
