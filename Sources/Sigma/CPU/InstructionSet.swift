import CSigma
import SystemLibrary

/// A level of the CPU kernels. Results are the same bytes for one level; levels may differ in last bits.
package struct InstructionSet: @unchecked Sendable {
    let kernels: UnsafePointer<sigma_kernels>

    package var name: String { String(cString: kernels.pointee.name) }

    /// The best level that this processor can run.
    package static var best: InstructionSet { InstructionSet(kernels: sigma_kernels_best()) }

    /// The levels that this processor can run, the best last.
    package static var all: [InstructionSet] {
        var levels: [InstructionSet] = []
        while let kernels = sigma_kernels_level(Int32(levels.count)) { levels.append(InstructionSet(kernels: kernels)) }
        return levels
    }

    init(kernels: UnsafePointer<sigma_kernels>) { self.kernels = kernels }

    /// nil where there is no such level or the processor cannot run it.
    package init?(named name: String) {
        guard let kernels = sigma_kernels_named(name) else { return nil }
        self.kernels = kernels
    }

    /// The level that `SIGMA_INSTRUCTION_SET` names, or the best.
    /// - Throws: `SigmaError(.unavailable)` where it names none that this processor can run.
    package static func fromEnvironment() throws -> InstructionSet {
        guard let name = getenv("SIGMA_INSTRUCTION_SET").map({ String(cString: $0) }), !name.isEmpty else {
            return .best
        }
        guard let level = InstructionSet(named: name) else {
            throw SigmaError(
                .unavailable, "SIGMA_INSTRUCTION_SET is '\(name)', which this processor cannot run",
                remedy: "Use one of: \(all.map(\.name).joined(separator: ", ")).")
        }
        return level
    }
}
