"""Named convolution problems, each with the reason why it is there."""

from convcore.problem import ConvProblem

CASES: dict[str, str] = {
    "smallest": "n1g1ic1ih1oc1kh1",
    "empty batch": "n0g1ic3ih5oc2kh3",
    "one output": "n1g1ic3ih5oc4kh5",
    "one output, grouped": "n7g3ic6ih3iw5oc15kh3kw5",
    "one output of many terms": "n5g1ic2100ih2oc5kh2",
    "kernel wider than the input": "n2g1ic2ih3oc3kh5ph2",
    "padding beyond the kernel": "n2g1ic1ih2oc2kh1ph3",
    "padding on one side": "n1g1ic2ih6oc3kh3kw2ph2_0pw0_1",
    "stride beyond the kernel": "n2g1ic2ih11oc3kh2sh5",
    "stride beyond the input": "n1g1ic1ih3oc1kh3sh1000",
    "strided, few channels": "n3g1ic3ih37iw41oc40kh5kw4sh4sw3ph2pw1",
    "strided, few channels, dilated": "n2g2ic4ih31oc80kh3kw4sh4sw2dh2dw2ph1",
    "strided beyond x, no tap": "n1g1ic2ih2oc3kh1sh5ph2",
    "rows that no window reaches": "n1g1ic2ih8oc2kh2sh3",
    "stride and dilation with a common factor": "n1g1ic2ih17iw13oc3kh4sh4dh2ph3",
    "stride a multiple of the dilation": "n1g1ic2ih16oc3kh3sh6dh3ph2",
    "dilation a multiple of the stride": "n1g1ic2ih19oc3kh3sh2dh4ph4",
    "dilation beyond the input": "n1g1ic1iw9oc2kw3pw4dw4",
    "first layer": "n2g1ic3ih20oc64kh7sh2ph3",
    "map of 7 pixels": "n5g1ic20ih7oc33kh3ph1",
    "map of 1 pixel, many samples": "n37g1ic19ih1oc23kh1",
    "pointwise": "n2g1ic70ih13iw11oc31kh1",
    "pointwise, strided": "n2g1ic17ih13iw11oc18kh1sh2",
    "several blocks of terms": "n2g1ic301ih6oc9kh2",
    "many terms, few outputs": "n1g1ic5ih24oc2kh17kw19",
    "grouped": "n2g3ic9ih8oc12kh3ph1",
    "depthwise": "n2g7ic7ih9oc7kh3ph1",
    "depthwise, multiplier 3": "n2g4ic4ih9oc12kh3sh2ph1",
    "depthwise, rows beyond a tile": "n2g3ic3ih17iw35oc3kh3ph1",
    "depthwise, rows left over": "n1g2ic2ih22iw16oc2kh3ph1_0pw0_1",
    "depthwise, no padding, multiplier 2": "n2g3ic3ih16iw33oc6kh5",
    "depthwise, 5x5, strided": "n2g3ic3ih15iw37oc3kh5sh2ph2",
    "depthwise, 7x7": "n2g2ic2ih21iw17oc2kh7ph3",
    "depthwise, 7x7, strided": "n1g2ic2ih20iw41oc2kh7sh2ph3",
    "depthwise, 4x2": "n2g3ic3ih10iw9oc3kh4kw2ph2pw0_1",
    "depthwise, 2x2, strided": "n2g3ic3ih12iw34oc3kh2sh2",
    "depthwise, many taps": "n1g2ic2ih14iw40oc2kh9kw11ph4pw5",
    "depthwise, strided along rows only": "n1g2ic2ih9iw35oc2kh3sh1sw2ph1",
    "depthwise, strided along columns only": "n1g2ic2ih19iw18oc2kh3sh2sw1ph1",
    "depthwise, stride 3 of rows": "n1g2ic2ih19iw18oc2kh3sh3sw2ph1",
    "depthwise, dilated": "n2g3ic3ih16iw19oc3kh3ph2dh2",
    "depthwise, dilation beyond the plane": "n1g2ic2ih4iw5oc2kh3ph9dh6",
    "depthwise, dilation 3, stride 2": "n1g2ic2ih19iw21oc2kh3sh2ph3dh3",
    "depthwise, dilation 2, stride 2": "n1g2ic2ih19iw21oc2kh3sh2ph2dh2",
    "depthwise, odd width, strided": "n2g2ic2ih7iw7oc2kh3sh2ph1",
    "depthwise, padding on one side": "n1g2ic2ih9iw17oc2kh3ph2_0pw0_2",
    "depthwise signal": "n2g3ic3iw300oc3kw9pw4",
    "depthwise signal, strided": "n2g3ic3iw511oc6kw5sw2pw2",
    "depthwise signal, dilated": "n1g2ic2iw400oc2kw4pw9dw6",
    "depthwise volume": "n2g3ic3id5ih9iw17oc3kd3pd1",
    "depthwise volume, strided": "n1g2ic2id6ih9iw18oc4kd3sd2pd1",
    "separable rows": "n2g4ic4ih9iw20oc4kh1kw7ph0pw3",
    "separable columns": "n2g4ic4ih9iw20oc4kh7kw1ph3pw0",
    "groups of 3": "n2g3ic9ih14iw15oc9kh3ph1",
    "groups of 4": "n2g3ic12ih8iw33oc12kh3ph1",
    "groups of 4, strided": "n2g3ic12ih15iw33oc12kh3sh2ph1",
    "groups of 8 to 5": "n1g2ic16ih9iw10oc10kh3ph1",
    "few groups, several chunks": "n5g2ic4ih40iw60oc4kh3ph1",
    "long signal": "n2g1ic3iw501oc5kw9dw3pw12",
    "strided signal": "n3g1ic2iw100oc4kw8sw4",
    "volume": "n2g1ic4id5ih6iw7oc5kd3kh2kw3pd1ph0pw1",
    "volume, strided and dilated": "n1g2ic4id7ih6iw9oc6kd2kh3kw2sd2sh1sw3dd1dh2dw1pd1",
    "several chunks of pixels": "n3g1ic2ih60oc3kh3ph1",
    "gradient mostly of padding": "n2g1ic20ih9oc50kh5",
    "gradient mostly of padding, strided": "n1g2ic24ih17iw12oc100kh7kw5sh2dw2",
    "gradient mostly of padding, signal": "n3g1ic70iw30oc49kw17",
    "gradient mostly of padding, volume": "n1g1ic18id5ih8iw7oc50kd3kh4kw5",
    "gradient mostly of padding, volume, strided": "n2g2ic24id7ih9iw10oc100kd3sd2pd1_0dw2",
    "gradient mostly of padding, half vectors": "n1g1ic12ih9iw7oc50kh4kw5",
    "gradient of one channel, kernel as wide as x": "n3g1ic1ih26iw13oc20kh9kw13",
    "gradient of few channels": "n2g1ic3ih13iw17oc40kh3ph1",
    "gradient of few channels, 8 of a group": "n2g2ic16ih9iw12oc80kh5ph2_1",
    "gradient of few channels, two bands": "n1g1ic3ih120iw171oc17kh7sh2ph3",
    "gradient of few channels, stride 3": "n1g1ic2ih23iw35oc18kh4kw5sh3ph1",
    "gradient of few channels, strided and dilated": "n1g1ic2ih23iw35oc18kh3sh2dh3dw4ph4",
    "gradient of few channels, several chains": "n1g1ic5ih10iw9oc260kh3sh2ph1",
    "gradient of few channels, signal": "n2g1ic4iw200oc24kw9sw2pw4",
    "gradient of few channels, volume": "n1g1ic3id6ih12iw11oc24kd3sd2pd1",
    "columns of one element": "n2g1ic20ih30iw1oc24kh5kw1sh2sw3ph2pw0",
    "rows of one element, between": "n1g1ic3id12ih1iw9oc20kd3kh1kw4pd1ph0pw2",
    "half a panel of channels": "n2g1ic18ih11oc16kh3ph1",
    "a panel and a half of channels": "n2g1ic40ih11iw9oc48kh3ph1",
    "a row longer than a box": "n1g1ic10iw1900oc12kw7pw3",
    "padding wider than the rows": "n1g1ic9ih4iw3oc20kh3ph5pw40",
    "several tasks": "n2g1ic40ih30oc64kh3ph1",
}


def around_dots() -> list[ConvProblem]:
    """List fully connected problems whose rows, channels and terms end around a tile."""
    return [
        *(ConvProblem.parse(f"n{n}g1ic9iw2oc7kw2") for n in range(1, 11)),
        *(
            ConvProblem.parse(f"n5g1ic9iw2oc{oc}kw2")
            for oc in (1, 2, 3, 4, 5, 8, 64, 65)
        ),
        *(ConvProblem.parse(f"n5g1ic{ic}iw1oc6kw1") for ic in range(1, 35)),
        *(ConvProblem.parse(f"n5g1ic{ic}iw1oc6kw1") for ic in (1023, 1025, 2049, 4100)),
        ConvProblem.parse("n130g2ic10iw1oc22kw1"),
    ]


def around_tiles(mr: int, nr: int, kc: int) -> list[ConvProblem]:
    """List problems whose channels, pixels and terms end around a full tile."""
    rows = [1, 2, 3, mr // 2, mr // 2 + 1, mr - 1, mr, mr + 1, 2 * mr + 3]
    pixels = [1, nr - 1, nr, nr + 1, 2 * nr + 3, 4 * nr + 1]
    terms = [kc - 1, kc, kc + 1, 2 * kc + 3]
    return [
        *(ConvProblem.parse(f"n1g1ic5iw{nr + 2}oc{oc}kw3") for oc in rows),
        *(ConvProblem.parse(f"n1g1ic{ic}iw{nr + 2}oc3kw3") for ic in rows),
        *(ConvProblem.parse(f"n1g1ic3iw{iw}oc{mr}kw1") for iw in pixels),
        *(ConvProblem.parse(f"n2g1ic2ih{iw}iw3oc{mr}kh1") for iw in pixels),
        *(ConvProblem.parse(f"n1g1ic{ic}iw5oc{mr}kw1") for ic in terms),
        *(ConvProblem.parse(f"n1g1ic3iw5oc{oc}kw1") for oc in terms),
    ]
