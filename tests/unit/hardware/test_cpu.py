import sys

import pytest

from triune.hardware.cpu import CoreLevel, parse_cpuinfo, parse_sysctl, read_cpu

EMERALD_RAPIDS = """\
processor\t: {index}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz
stepping\t: 2
cpu cores\t: 8
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht \
syscall nx pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid tsc_known_freq pni pclmulqdq ssse3 \
fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm abm 3dnowprefetch ssbd \
ibrs ibpb stibp ibrs_enhanced fsgsbase tsc_adjust bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx \
smap avx512ifma clflushopt clwb avx512cd sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 xsaves avx_vnni avx512_bf16 \
arat avx512vbmi umip avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq la57 rdpid cldemote \
movdiri movdir64b fsrm md_clear serialize tsxldtrk amx_bf16 avx512_fp16 amx_tile amx_int8 arch_capabilities
bugs\t\t: spectre_v1 spectre_v2 spec_store_bypass swapgs bhi
address sizes\t: 52 bits physical, 57 bits virtual
power management:

"""

EPYC = """\
processor\t: {index}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 1
cache size\t: 512 KB
siblings\t: 2
cpu cores\t: 2
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht \
syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid extd_apicid \
tsc_known_freq pni pclmulqdq ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave avx \
f16c rdrand hypervisor lahf_lm cmp_legacy cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext ssbd ibrs ibpb \
stibp vmmcall fsgsbase tsc_adjust bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha_ni xsaveopt \
xsavec xgetbv1 xsaves clzero xsaveerptr wbnoinvd arat umip pku ospke vaes vpclmulqdq rdpid fsrm
bugs\t\t: sysret_ss_attrs spectre_v1 spectre_v2 spec_store_bypass srso ibpb_no_ret spectre_v2_user
TLB size\t: 2560 4K pages
power management:

"""

GRAVITON = """\
processor\t: {index}
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp {extra}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1

"""

APPLE_M2 = """\
machdep.cpu.cores_per_package: 8
machdep.cpu.core_count: 8
machdep.cpu.logical_per_package: 8
machdep.cpu.thread_count: 8
machdep.cpu.brand_string: Apple M2
hw.ncpu: 8
hw.byteorder: 1234
hw.memsize: 17179869184
hw.activecpu: 8
hw.perflevel0.physicalcpu: 4
hw.perflevel0.physicalcpu_max: 4
hw.perflevel0.logicalcpu: 4
hw.perflevel0.logicalcpu_max: 4
hw.perflevel0.l2cachesize: 16777216
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel1.physicalcpu_max: 4
hw.perflevel1.logicalcpu: 4
hw.perflevel1.logicalcpu_max: 4
hw.perflevel1.l2cachesize: 4194304
hw.perflevel1.name: Efficiency
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_WFxT: 0
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.arm.FEAT_SME2: 0
hw.optional.arm.SME_F32F32: 0
hw.optional.floatingpoint: 1
hw.optional.watchpoint: 4
hw.optional.arm64: 1
hw.features.allows_security_research: 0
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.cputype: 16777228
"""


def test_emerald_rapids_has_amx() -> None:
    cpu = parse_cpuinfo("".join(EMERALD_RAPIDS.format(index=i) for i in range(16)), machine="x86_64", num_cores=16)
    assert cpu.name == "INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz"
    assert cpu.num_cores == 16
    assert {"amx_tile", "amx_bf16", "amx_int8", "avx512_bf16"} <= cpu.features
    assert not cpu.is_apple_silicon


def test_epyc_has_none() -> None:
    cpu = parse_cpuinfo("".join(EPYC.format(index=i) for i in range(2)), machine="x86_64", num_cores=1)
    assert cpu.name == "AMD EPYC"
    assert cpu.num_cores == 1
    assert "avx2" in cpu.features
    assert not any(feature.startswith("amx") for feature in cpu.features)


def test_arm_linux_has_no_model_name_and_cores_may_differ() -> None:
    text = GRAVITON.format(index=0, extra="sve") + GRAVITON.format(index=1, extra="")
    cpu = parse_cpuinfo(text + "Hardware\t: some board\nRevision\t: 0000\n", machine="aarch64", num_cores=2)
    assert cpu.name == "aarch64 CPU"
    assert "asimdhp" in cpu.features
    assert "sve" not in cpu.features  # only one of the two cores has it


def test_a_feature_that_one_core_lacks_does_not_count() -> None:
    text = EMERALD_RAPIDS.format(index=0) + EPYC.format(index=1)
    assert "amx_tile" not in parse_cpuinfo(text, machine="x86_64", num_cores=2).features


@pytest.mark.parametrize("text", ["", "\n\n", "nonsense", "processor\t: 0\n"])
def test_cpuinfo_that_tells_nothing(text: str) -> None:
    cpu = parse_cpuinfo(text, machine="riscv64", num_cores=4)
    assert cpu.name == "riscv64 CPU"
    assert cpu.features == frozenset()


def test_apple_m2() -> None:
    cpu = parse_sysctl(APPLE_M2)
    assert cpu.name == "Apple M2"
    assert cpu.is_apple_silicon
    assert cpu.num_cores == 8
    assert cpu.levels == (CoreLevel("Performance", 4), CoreLevel("Efficiency", 4))
    assert {"FEAT_DotProd", "FEAT_BF16", "FEAT_FP16"} == cpu.features - {"FEAT_I8MM"}
    assert "FEAT_SME" not in cpu.features


def test_apple_m4_has_sme() -> None:
    text = APPLE_M2.replace("Apple M2", "Apple M4").replace("FEAT_SME: 0", "FEAT_SME: 1")
    assert "FEAT_SME" in parse_sysctl(text).features


def test_intel_mac() -> None:
    cpu = parse_sysctl(
        "machdep.cpu.brand_string: Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz\nhw.activecpu: 16\nhw.optional.avx2_0: 1\n"
    )
    assert not cpu.is_apple_silicon
    assert (cpu.num_cores, cpu.levels, cpu.features) == (16, (), frozenset())


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="Triune runs on macOS and Linux")
def test_this_machine() -> None:
    cpu = read_cpu()
    assert cpu.name
    assert cpu.num_cores >= 1
    assert cpu.features
