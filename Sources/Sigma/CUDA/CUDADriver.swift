/// An address in the memory of a device (`CUdeviceptr`); 0: none.
typealias DeviceAddress = UInt64

/// The functions of the CUDA driver that the back end calls, found in `libcuda.so.1` at run time: nothing of CUDA is needed to build.
///
/// Handles (context, module, function, stream, event, graph) are pointers that only the driver looks into.
struct CUDADriver: @unchecked Sendable {
    typealias Handle = UnsafeMutableRawPointer
    typealias OutHandle = UnsafeMutablePointer<UnsafeMutableRawPointer?>
    typealias OutInt = UnsafeMutablePointer<Int32>
    typealias OutSize = UnsafeMutablePointer<Int>
    typealias OutAddress = UnsafeMutablePointer<DeviceAddress>
    typealias OutText = UnsafeMutablePointer<UnsafePointer<CChar>?>

    let initialize: @convention(c) (UInt32) -> Int32
    let driverVersion: @convention(c) (OutInt) -> Int32
    let deviceCount: @convention(c) (OutInt) -> Int32
    let device: @convention(c) (OutInt, Int32) -> Int32
    let deviceName: @convention(c) (UnsafeMutablePointer<CChar>, Int32, Int32) -> Int32
    let deviceMemory: @convention(c) (OutSize, Int32) -> Int32
    let deviceAttribute: @convention(c) (OutInt, Int32, Int32) -> Int32
    let retainContext: @convention(c) (OutHandle, Int32) -> Int32
    let releaseContext: @convention(c) (Int32) -> Int32
    let setContext: @convention(c) (Handle?) -> Int32
    let errorName: @convention(c) (Int32, OutText) -> Int32

    let memoryInfo: @convention(c) (OutSize, OutSize) -> Int32
    let allocate: @convention(c) (OutAddress, Int) -> Int32
    let free: @convention(c) (DeviceAddress) -> Int32
    let allocateHost: @convention(c) (OutHandle, Int, UInt32) -> Int32
    let freeHost: @convention(c) (Handle) -> Int32
    let hostAddress: @convention(c) (OutAddress, Handle, UInt32) -> Int32
    let copyToDevice: @convention(c) (DeviceAddress, UnsafeRawPointer, Int) -> Int32
    let copyToHost: @convention(c) (Handle, DeviceAddress, Int) -> Int32
    let copyToDeviceAsync: @convention(c) (DeviceAddress, UnsafeRawPointer, Int, Handle?) -> Int32
    let copyToHostAsync: @convention(c) (Handle, DeviceAddress, Int, Handle?) -> Int32
    let fill: @convention(c) (DeviceAddress, UInt8, Int, Handle?) -> Int32

    let createStream: @convention(c) (OutHandle, UInt32) -> Int32
    let synchronizeStream: @convention(c) (Handle?) -> Int32
    let destroyStream: @convention(c) (Handle) -> Int32
    let streamWaits: @convention(c) (Handle?, Handle, UInt32) -> Int32
    let createEvent: @convention(c) (OutHandle, UInt32) -> Int32
    let recordEvent: @convention(c) (Handle, Handle?) -> Int32
    let queryEvent: @convention(c) (Handle) -> Int32
    let synchronizeEvent: @convention(c) (Handle) -> Int32
    let elapsedTime: @convention(c) (UnsafeMutablePointer<Float>, Handle, Handle) -> Int32
    let destroyEvent: @convention(c) (Handle) -> Int32

    let loadModule: @convention(c) (OutHandle, UnsafeRawPointer) -> Int32
    let unloadModule: @convention(c) (Handle) -> Int32
    let moduleFunction: @convention(c) (OutHandle, Handle, UnsafePointer<CChar>) -> Int32
    let setFunctionAttribute: @convention(c) (Handle, Int32, Int32) -> Int32
    let launch:
        @convention(c) (
            Handle, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, Handle?, OutHandle?, OutHandle?
        ) -> Int32

    let beginCapture: @convention(c) (Handle, Int32) -> Int32
    let endCapture: @convention(c) (Handle, OutHandle) -> Int32
    let instantiateGraph: @convention(c) (OutHandle, Handle, UInt64) -> Int32
    let launchGraph: @convention(c) (Handle, Handle) -> Int32
    let destroyGraph: @convention(c) (Handle) -> Int32
    let destroyGraphExecutable: @convention(c) (Handle) -> Int32

    /// - Parameter chosen: the library in place of the usual one; nil: the usual one.
    /// - Throws: `CUDAUnavailable`.
    init(_ chosen: String?) throws(CUDAUnavailable) {
        guard let library = DynamicLibrary(firstOf: chosen.map { [$0] } ?? ["libcuda.so.1"]) else {
            if let chosen { throw .driverNotOpened(path: chosen, reason: DynamicLibrary.lastFailure) }
            throw .noDriver
        }
        func find<T>(_ name: String) throws(CUDAUnavailable) -> T {
            guard let function: T = library.function(name) else { throw .driverTooOld(missing: name) }
            return function
        }
        initialize = try find("cuInit")
        driverVersion = try find("cuDriverGetVersion")
        deviceCount = try find("cuDeviceGetCount")
        device = try find("cuDeviceGet")
        deviceName = try find("cuDeviceGetName")
        deviceMemory = try find("cuDeviceTotalMem_v2")
        deviceAttribute = try find("cuDeviceGetAttribute")
        retainContext = try find("cuDevicePrimaryCtxRetain")
        releaseContext = try find("cuDevicePrimaryCtxRelease_v2")
        setContext = try find("cuCtxSetCurrent")
        errorName = try find("cuGetErrorName")
        memoryInfo = try find("cuMemGetInfo_v2")
        allocate = try find("cuMemAlloc_v2")
        free = try find("cuMemFree_v2")
        allocateHost = try find("cuMemHostAlloc")
        freeHost = try find("cuMemFreeHost")
        hostAddress = try find("cuMemHostGetDevicePointer_v2")
        copyToDevice = try find("cuMemcpyHtoD_v2")
        copyToHost = try find("cuMemcpyDtoH_v2")
        copyToDeviceAsync = try find("cuMemcpyHtoDAsync_v2")
        copyToHostAsync = try find("cuMemcpyDtoHAsync_v2")
        fill = try find("cuMemsetD8Async")
        createStream = try find("cuStreamCreate")
        synchronizeStream = try find("cuStreamSynchronize")
        destroyStream = try find("cuStreamDestroy_v2")
        streamWaits = try find("cuStreamWaitEvent")
        createEvent = try find("cuEventCreate")
        recordEvent = try find("cuEventRecord")
        queryEvent = try find("cuEventQuery")
        synchronizeEvent = try find("cuEventSynchronize")
        elapsedTime = try find("cuEventElapsedTime")
        destroyEvent = try find("cuEventDestroy_v2")
        loadModule = try find("cuModuleLoadData")
        unloadModule = try find("cuModuleUnload")
        moduleFunction = try find("cuModuleGetFunction")
        setFunctionAttribute = try find("cuFuncSetAttribute")
        launch = try find("cuLaunchKernel")
        beginCapture = try find("cuStreamBeginCapture_v2")
        endCapture = try find("cuStreamEndCapture")
        instantiateGraph = try find("cuGraphInstantiateWithFlags")
        launchGraph = try find("cuGraphLaunch")
        destroyGraph = try find("cuGraphDestroy")
        destroyGraphExecutable = try find("cuGraphExecDestroy")
    }

    /// - Throws: `CUDAStatus` unless `code` is 0 (`CUDA_SUCCESS`).
    @inline(__always)
    func check(_ code: Int32) throws(CUDAStatus) {
        if code != 0 { throw status(code) }
    }

    func status(_ code: Int32) -> CUDAStatus {
        var name: UnsafePointer<CChar>?
        let isKnown = errorName(code, &name) == 0
        return CUDAStatus(code: code, name: isKnown ? name.map { String(cString: $0) } ?? "an error" : "an error")
    }

    // What the driver's header calls them.
    static let hostAllocPortable: UInt32 = 1
    static let hostAllocMapped: UInt32 = 2
    static let streamNonBlocking: UInt32 = 1
    static let eventDisableTiming: UInt32 = 2
    static let captureThreadLocal: Int32 = 1
    static let attributeMultiprocessors: Int32 = 16
    static let attributeClockRate: Int32 = 13
    static let attributeMemoryClockRate: Int32 = 36
    static let attributeMemoryBusWidth: Int32 = 37
    static let attributeCapabilityMajor: Int32 = 75
    static let attributeCapabilityMinor: Int32 = 76
    static let attributeSharedMemoryOptIn: Int32 = 97
    static let functionMaxDynamicShared: Int32 = 8
}
