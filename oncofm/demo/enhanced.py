"""A phantom scan as one multi-frame Enhanced CT image (PS3.3 A.38.1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

from oncofm.demo.dicom import AXIAL, ct_geometry
from oncofm.demo.encode import set_pixels
from oncofm.demo.headers import (
    FIXED_DATE,
    FIXED_TIME,
    EditSlice,
    ct_header,
    decimal,
    decimals,
    describe_pixels,
    finish,
    orientation,
    phantom_uid,
    pixel_spacing,
    stored_values,
)
from oncofm.demo.phantom import Scene, sample_scene
from oncofm.imaging.geometry import Geometry


def write_enhanced_ct(
    path: Path,
    scene: Scene,
    *,
    shape: tuple[int, int, int] = (96, 80, 40),
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0),
    direction: Sequence[Sequence[float]] | np.ndarray = AXIAL,
    centre_mm: tuple[float, float, float] | None = None,
    slice_origins_mm: np.ndarray | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    slope: float = 1.0,
    intercept: float = -1024.0,
    uid_seed: str = "enhanced",
    edit: EditSlice | None = None,
) -> Path:
    """Scan a scene and write it as one Enhanced CT instance, one frame per slice.

    The parameters are those of `oncofm.demo.dicom.write_ct_series`; ``edit`` is called once,
    with index 0.

    Returns
    -------
    pathlib.Path
        The file. Its frames are in the order of the slices; spacing and orientation are shared
        functional groups, position and rescale are per frame.
    """
    geometry = ct_geometry(scene, shape, spacing_mm, direction, centre_mm, slice_origins_mm)
    pixels = stored_values(sample_scene(scene, geometry), slope, intercept, signed=False)
    series_uid = phantom_uid(uid_seed, "series")
    dataset = ct_header(uid_seed, None, series_uid, None)
    for keyword in ("KVP", "AcquisitionDate", "AcquisitionTime"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = EnhancedCTImageStorage
    dataset.SOPInstanceUID = phantom_uid(series_uid, "instance")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.AcquisitionDateTime = FIXED_DATE + FIXED_TIME
    dataset.AcquisitionDuration = 1.0
    dataset.ContentQualification = "RESEARCH"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.InstanceNumber = 1
    dataset.AcquisitionContextSequence = []
    dataset.NumberOfFrames = len(pixels)

    organization_uid = phantom_uid(series_uid, "dimensions")
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization_uid)]
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization_uid,
            DimensionIndexPointer=0x00209057,  # In-Stack Position Number
            FunctionalGroupPointer=0x00209111,  # Frame Content Sequence
        )
    ]
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(geometry, spacing_mm[2])]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[
                _item(
                    FrameAcquisitionNumber=1,
                    FrameAcquisitionDateTime=FIXED_DATE + FIXED_TIME,
                    FrameReferenceDateTime=FIXED_DATE + FIXED_TIME,
                    FrameAcquisitionDuration=1.0,
                    StackID="1",
                    InStackPositionNumber=index + 1,
                    DimensionIndexValues=[index + 1],
                )
            ],
            PlanePositionSequence=[_item(ImagePositionPatient=decimals(origin_mm))],
            PixelValueTransformationSequence=[
                _item(
                    RescaleIntercept=decimal(intercept),
                    RescaleSlope=decimal(slope),
                    RescaleType="HU",
                )
            ],
        )
        for index, origin_mm in enumerate(geometry.origins_mm)
    ]
    describe_pixels(dataset, pixels, signed=False)
    set_pixels(dataset, pixels, transfer_syntax)
    finish(dataset, path, 0, edit)
    return path


def _shared_groups(geometry: Geometry, slice_thickness_mm: float) -> Dataset:
    """Describe what all frames have in common; the settings are those of no real scanner."""
    return _item(
        PixelMeasuresSequence=[
            _item(PixelSpacing=pixel_spacing(geometry), SliceThickness=decimal(slice_thickness_mm))
        ],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=orientation(geometry))],
        FrameAnatomySequence=[
            _item(
                FrameLaterality="U",
                AnatomicRegionSequence=[
                    _item(CodeValue="816094009", CodingSchemeDesignator="SCT", CodeMeaning="Chest")
                ],
            )
        ],
        CTImageFrameTypeSequence=[
            _item(
                FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        CTAcquisitionTypeSequence=[
            _item(
                AcquisitionType="SPIRAL",
                ConstantVolumeFlag="NO",
                FluoroscopyFlag="NO",
            )
        ],
        CTAcquisitionDetailsSequence=[
            _item(
                RotationDirection="CW",
                RevolutionTime=1.0,
                SingleCollimationWidth=1.0,
                TotalCollimationWidth=1.0,
                TableHeight=0.0,
                GantryDetectorTilt=0.0,
                DataCollectionDiameter=500.0,
            )
        ],
        CTPositionSequence=[
            _item(
                TablePosition=0.0,
                DataCollectionCenterPatient=[0.0, 0.0, 0.0],
                ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
            )
        ],
        CTTableDynamicsSequence=[
            _item(TableSpeed=10.0, TableFeedPerRotation=10.0, SpiralPitchFactor=1.0)
        ],
        CTGeometrySequence=[
            _item(DistanceSourceToDetector=1000.0, DistanceSourceToDataCollectionCenter=500.0)
        ],
        CTReconstructionSequence=[
            _item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel="PHANTOM",
                ConvolutionKernelGroup="BODY",
                ReconstructionDiameter=500.0,
                ReconstructionPixelSpacing=[float(value) for value in pixel_spacing(geometry)],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            _item(
                ExposureTimeInms=1.0,
                XRayTubeCurrentInmA=1.0,
                ExposureInmAs=1.0,
                ExposureModulationType="NONE",
            )
        ],
        CTXRayDetailsSequence=[
            _item(
                KVP="120",
                FocalSpots=[1.0],
                FilterType="FLAT",
                FilterMaterial=["ALUMINUM"],
            )
        ],
        IrradiationEventIdentificationSequence=[
            _item(IrradiationEventUID=phantom_uid("irradiation"))
        ],
    )


def _item(**attributes) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset
