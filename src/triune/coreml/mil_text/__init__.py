"""Read and write MIL text, the form of `model.mil` in compiled Core ML models, from and to MIL's protobuf.

    program(1.3)
    [buildInfo = dict<string, string>({{"coremlc-version", "3520.5.1"}})]
    {
        func main<ios18>(tensor<fp32, [2, 3]> x) {
                tensor<fp32, [3]> b = const()[name = string("b"), val = tensor<fp32, [3]>([0x1p+0, 0x0p+0, -inf])];
                tensor<fp32, [2, 3]> y = add(x = x, y = b)[name = string("y")];
            } -> (y);
    }

The grammar is in the docstrings of `program`, `types` and `values`. Quoted words are literal, `?` means optional, `*`
any number, and `,*` any number separated by commas. Apple publishes no grammar: this one is derived from files of
Apple's compiler. No file with blocks of `cond` and `while_loop`, or with lists of strings, was available; their rules
are guesses by analogy.
"""

from triune.coreml.mil_text.program import read_text
from triune.coreml.mil_text.write import write_text

__all__ = ["read_text", "write_text"]
