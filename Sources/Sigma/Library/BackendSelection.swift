/// Which back end a configuration gets.
extension SigmaModel {
    /// - Parameters:
    ///   - progress: called with the share of weights that are on the device; only where they are copied there.
    /// - Throws: `SigmaError(.unavailable)` for `cuda` with the reason why it cannot be had; otherwise as the CPU's.
    package static func makeBackend(
        _ model: ModelFile, _ configuration: Configuration, progress: (Double) throws -> Void = { _ in }
    ) throws -> any EngineBackend {
        switch configuration.backend {
        case .cpu: break
        case .cuda:
            do {
                return try CUDABackend(model: model, limits: configuration.memoryLimits, progress: progress)
            } catch let reason as CUDAUnavailable {
                throw reason.error()
            }
        case .auto:
            do {
                return try CUDABackend(model: model, limits: configuration.memoryLimits, progress: progress)
            } catch let reason as CUDAUnavailable {
                if !reason.isExpected { configuration.warn?(reason.message + "; the CPU computes") }
            } catch let error as SigmaError where error.kind == .unavailable {
                configuration.warn?(error.message + "; the CPU computes")
            }
        }
        return try CPUBackend(
            model: model, threadCount: configuration.threads, instructionSet: try InstructionSet.fromEnvironment(),
            limits: configuration.memoryLimits, fullHead: configuration.usesFullHead)
    }
}
