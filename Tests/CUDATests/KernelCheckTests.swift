import EmulatedDevice
import Foundation
import Testing

/// Every kernel against a scalar twin, on the emulated device: `Tests/CUDAKernelCheck`.
@Suite struct CUDAKernelCheckTests {
    static let program = Result { () throws -> String in
        let check = "Tests/CUDAKernelCheck"
        let sources = try FileManager.default.contentsOfDirectory(atPath: "\(packageRoot)/\(check)")
            .filter { $0.hasSuffix(".cpp") }.sorted().map { "\(check)/\($0)" }
        return try Toolchain.link(
            "check-cuda-kernels",
            sources + [
                "Tests/CUDAEmulation/fibers.cpp", "Tests/CUDAEmulation/kernels.cpp", "Sources/CSigma/packing.c",
            ],
            options: [])
    }

    @Test(.enabled(if: EmulatedDevice.missing == nil, "\(EmulatedDevice.missing ?? "")"))
    func everyKernelMatchesItsTwin() throws {
        let result = try Toolchain.run(try Self.program.get())
        #expect(result.status == 0, "\(result.text)")
        // Each check says how much it compared.
        let lines = result.text.split(separator: "\n").filter { $0.contains(" comparisons, 0 failures") }
        #expect(lines.count >= 18, "\(result.text)")
    }
}
