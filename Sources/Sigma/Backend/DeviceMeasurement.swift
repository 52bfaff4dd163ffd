/// What a device can do at most, measured.
package struct DeviceMeasurement: Sendable {
    package var name: String
    /// Bytes per second that kernels read from the device's memory.
    package var readBandwidth: Double
    /// Bytes per second from pinned memory of the host.
    package var busBandwidth: Double
    /// Multiply-adds per second: 8-bit integers on tensor cores (mma.m16n8k32), fp32.
    package var int8Peak: Double
    package var fp32Peak: Double
}

/// A back end whose ceilings nothing on the host can measure.
package protocol MeasurableDevice: AnyObject {
    /// Takes about a second, and up to a GiB of the device's memory for its time. No step may be running.
    ///
    /// - Throws: `SigmaError(.unavailable)` if the device fails.
    func measureDevice() throws -> DeviceMeasurement
}
