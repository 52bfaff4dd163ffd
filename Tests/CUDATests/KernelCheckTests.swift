import EmulatedDevice
import Foundation
import SystemLibrary
import Testing

/// Every kernel against a scalar twin (`Tests/CUDAKernelCheck`): on the emulated device, and on a real one where there is one.
@Suite(.serialized) struct CUDAKernelCheckTests {
    static let program = Result { () throws -> String in
        let check = "Tests/CUDAKernelCheck"
        let sources = try FileManager.default.contentsOfDirectory(atPath: "\(packageRoot)/\(check)")
            .filter { $0.hasSuffix(".cpp") }.sorted().map { "\(check)/\($0)" }
        return try Toolchain.link(
            "check-cuda-kernels",
            sources + [
                "Tests/CUDAEmulation/fibers.cpp", "Tests/CUDAEmulation/kernels.cpp", "Sources/CSigma/packing.c",
                "Sources/CCUDA/sources.c",
            ],
            options: [])
    }

    /// Runs the program with variables of the environment; it must find nothing wrong.
    static func check(_ variables: [String] = [], _ arguments: [String] = []) throws {
        let result = try Toolchain.run("/usr/bin/env", variables + [try program.get()] + arguments)
        #expect(result.status == 0, "\(result.text)")
        // Each check says how much it compared.
        let lines = result.text.split(separator: "\n").filter { $0.contains(" comparisons, 0 failures") }
        #expect(lines.count >= 18, "\(result.text)")
    }

    @Test(.enabled(if: EmulatedDevice.missing == nil, "\(EmulatedDevice.missing ?? "")"))
    func everyKernelMatchesItsTwin() throws {
        try Self.check()
    }

    /// The same through the calls of a driver, as on a real device.
    @Test(.enabled(if: EmulatedDevice.missing == nil, "\(EmulatedDevice.missing ?? "")"))
    func everyKernelMatchesThroughADriver() throws {
        let library = try EmulatedDevice.library.get()
        try Self.check(["SIGMA_CUDA_DRIVER=\(library)", "SIGMA_NVRTC=\(library)"], ["--device"])
    }

    @Test(.enabled(if: EmulatedDevice.missing == nil, "\(EmulatedDevice.missing ?? "")"))
    func saysWhatIsMissing() throws {
        let result = try Toolchain.run(
            "/usr/bin/env", ["SIGMA_CUDA_DRIVER=/nowhere/libcuda.so", try Self.program.get(), "--device"])
        #expect(result.status == 69)
        #expect(result.text == "no device to check: there is no /nowhere/libcuda.so\n")
    }

    /// Why no real device can be used.
    static let noDevice: String? = {
        guard let driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) else { return "there is no libcuda.so.1" }
        guard let start = dlsym(driver, "cuInit") else { return "libcuda.so.1 has no cuInit" }
        let result = unsafeBitCast(start, to: (@convention(c) (UInt32) -> Int32).self)(0)
        return result == 0 ? nil : "the driver finds no device (cuInit gives \(result))"
    }()

    @Test(.enabled(if: noDevice == nil && EmulatedDevice.missing == nil, "\(noDevice ?? EmulatedDevice.missing ?? "")"))
    func everyKernelMatchesOnTheDevice() throws {
        try Self.check([], ["--device"])
    }
}
