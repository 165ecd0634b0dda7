"""Bytes between a chip and its memory, read off a compiled program."""

from benchmarks.tpu import memory_traffic

PROGRAM = """
%other (x: f32[9]) -> f32[9] {
  %x = f32[9]{0} parameter(0)
  ROOT %y = f32[9]{0} add(%x, %x)
}

ENTRY %main (a: bf16[100,10]) -> f32[100] {
  %a = bf16[100,10]{1,0:T(8,128)} parameter(0)
  %b = bf16[10,100]{0,1} bitcast(%a)
  %on_chip = bf16[100,10]{1,0:T(8,128)S(1)} fusion(%a), kind=kLoop, calls=%other
  %copy = (bf16[100,10]{1,0}, bf16[100,10]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%on_chip)
  %done = bf16[100,10]{1,0} copy-done(%copy)
  ROOT %sum = f32[100]{0} custom-call(%done, %on_chip), custom_call_target="tpu_custom_call"
}
"""


def test_what_stays_on_the_chip_costs_nothing():
    read, copied, at_the_end = 2000, 2000, 2000 + 400
    assert memory_traffic(PROGRAM) == read + copied + at_the_end
