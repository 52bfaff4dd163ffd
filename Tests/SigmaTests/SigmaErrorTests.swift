import Foundation
@testable import Sigma
import Testing

/// What programs show of an error: where and what in one line, and what to do in the library's words.
@Suite struct SigmaErrorTests {
    static let error = SigmaError(
        .unavailable, "the budget is too small", path: "m.gguf", item: "a tensor", offset: 7,
        remedy: .anyOf(["Close other programs.", .raise(.memory, least: "607 MiB")]))

    @Test func applicationsSeeTheMessage() {
        let error: any Error = Self.error
        #expect(error.localizedDescription == "m.gguf: 'a tensor' at byte 7: the budget is too small")
        #expect(
            (error as? LocalizedError)?.recoverySuggestion
                == "Close other programs. Or: Raise Configuration.memory to 607 MiB or more.")
        #expect(SigmaError(.usage, "no").localizedDescription == "no")
        #expect(SigmaError(.usage, "no").recoverySuggestion == nil)
        #expect(
            "\(error)" == error.localizedDescription
                + "\nClose other programs. Or: Raise Configuration.memory to 607 MiB or more.")
    }

    /// Through `load`, as a program meets it.
    @Test func errorsOfLoading() async {
        for path in ["/nope.gguf", "/tmp/a\0b.gguf", "/dev/null", "/"] {
            do {
                _ = try await SigmaModel.load(from: path)
                Issue.record("\(path) is a model")
            } catch {
                #expect(!error.localizedDescription.contains("SigmaError"), "\(error.localizedDescription)")
                #expect(error.localizedDescription.contains(path.contains("\0") ? "NUL" : path))
            }
        }
    }

    /// A library's advice names its settings; options are the commands' words.
    @Test func adviceNamesNoOptions() {
        let status = CUDAStatus(code: 1, name: "CUDA_ERROR_INVALID_VALUE")
        let reasons: [CUDAUnavailable] = [
            .noDriver, .driverNotOpened(path: "p", reason: "r"), .driverTooOld(missing: "f"),
            .driverFailed(call: "cuInit", status: status), .noDevice, .deviceTooOld(name: "K80", capability: 37),
            .noCompiler,
            .compilerNotOpened(path: "p", reason: "r"), .compilerTooOld(missing: "f"), .kernelsNotCompiled(log: "l"),
            .tooLittleMemory(device: "d", needed: 2, available: 1), .tooLittleHostMemory(needed: 1),
        ]
        for reason in reasons {
            let text = reason.error().description
            #expect(!text.contains("--") && text.contains("Set Configuration.backend to cpu."), "\(text)")
        }
        for setting in Remedy.Setting.allCases {
            let remedy = Remedy.anyOf([
                .raise(setting, least: nil), .lower(setting), .set(setting, to: "x"), .writeMarkup,
            ])
            #expect(!remedy.description.contains("--"), "\(remedy)")
        }
    }
}
