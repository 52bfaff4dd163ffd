/// Why the CUDA back end cannot be had, or not for this model.
package enum CUDAUnavailable: Error, Sendable, Equatable {
    /// The machine has no driver: no library of that name.
    case noDriver
    /// The library that `SIGMA_CUDA_DRIVER` names cannot be opened.
    case driverNotOpened(path: String, reason: String)
    /// The driver lacks a function that the back end calls.
    case driverTooOld(missing: String)
    /// The driver does not start.
    case driverFailed(call: String, status: CUDAStatus)
    /// There is a driver, and no device.
    case noDevice
    /// Compute capability, times ten, of the best device.
    case deviceTooOld(name: String, capability: Int)
    case noCompiler
    case compilerNotOpened(path: String, reason: String)
    case compilerTooOld(missing: String)
    /// NVRTC's log.
    case kernelsNotCompiled(log: String)
    /// Bytes that the model needs on the device at least, and what it may use.
    case tooLittleMemory(device: String, needed: Int, available: Int)
    /// Names of weight types that no kernel multiplies.
    case weightTypes([String])
    /// The host's memory behind the experts that the device has no room for.
    case tooLittleHostMemory(needed: Int)

    /// Whether `auto` says nothing about it: a machine without a GPU is no surprise.
    package var isExpected: Bool {
        switch self {
        case .noDriver, .noDevice: true
        default: false
        }
    }

    package var message: String {
        func mebibytes(_ bytes: Int) -> String { "\((bytes + (1 << 20) - 1) >> 20) MiB" }
        return switch self {
        case .noDriver: "there is no CUDA driver on this machine (libcuda.so.1)"
        case .driverNotOpened(let path, let reason):
            "the CUDA driver that SIGMA_CUDA_DRIVER names cannot be opened: \(path): \(reason)"
        case .driverTooOld(let missing): "the CUDA driver is too old: it has no function \(missing)"
        case .driverFailed(let call, let status): "the CUDA driver does not start: \(call) failed with \(status)"
        case .noDevice: "there is no CUDA device"
        case .deviceTooOld(let name, let capability):
            "the CUDA device is too old: expected compute capability 8.0 or later, found \(capability / 10).\(capability % 10) (\(name))"
        case .noCompiler: "there is no NVRTC library to compile CUDA kernels with (libnvrtc.so.13, .12 or .11.2)"
        case .compilerNotOpened(let path, let reason):
            "the NVRTC library that SIGMA_NVRTC names cannot be opened: \(path): \(reason)"
        case .compilerTooOld(let missing): "the NVRTC library is too old: it has no function \(missing)"
        case .kernelsNotCompiled(let log): "the CUDA kernels cannot be compiled: \(log)"
        case .tooLittleMemory(let device, let needed, let available):
            "the CUDA device has too little memory: the model needs \(mebibytes(needed)) at least, and may use \(mebibytes(available)) (\(device))"
        case .weightTypes(let names): "there are no CUDA kernels for weights of type \(names.joined(separator: ", "))"
        case .tooLittleHostMemory(let needed):
            "the experts do not fit the CUDA device, and the host gives no \(mebibytes(needed)) of pinned memory for them"
        }
    }

    private var remedy: Remedy {
        let others: [Remedy] =
            switch self {
            case .noDriver, .noDevice: []
            case .driverNotOpened: ["Correct or unset SIGMA_CUDA_DRIVER."]
            case .driverTooOld: ["Install a driver for CUDA 11.4 or later."]
            case .driverFailed: ["See what nvidia-smi says."]
            case .deviceTooOld: ["Use an A100 or a later device."]
            case .noCompiler:
                [
                    "Install NVRTC (pip install nvidia-cuda-nvrtc-cu12, for example).",
                    "Name its libnvrtc.so.12 in SIGMA_NVRTC.",
                ]
            case .compilerNotOpened: ["Correct or unset SIGMA_NVRTC."]
            case .compilerTooOld: ["Install NVRTC 11.4 or later."]
            case .kernelsNotCompiled: ["Use a newer NVRTC."]
            case .tooLittleMemory: ["Close what else uses the device.", .raise(.memory, least: nil)]
            case .weightTypes: ["Use a file of Q8_0, Q6_K, Q4_K and Q4_0 weights (Q4_K_M files have no others)."]
            case .tooLittleHostMemory: ["Close other programs."]
            }
        let useCPU = Remedy.set(.backend, to: "cpu")
        return others.isEmpty ? useCPU : .anyOf(others + [useCPU])
    }

    package func error() -> SigmaError { SigmaError(.unavailable, message, remedy: remedy) }
}

/// A `CUresult`, with the driver's name for it.
package struct CUDAStatus: Error, Sendable, Equatable, CustomStringConvertible {
    package let code: Int32
    package let name: String

    package var description: String { "\(name) (\(code))" }

    static let outOfMemory: Int32 = 2
    static let noDevice: Int32 = 100
    /// Of `cuEventQuery`: not yet.
    static let notReady: Int32 = 600
}
